"""The competitors of run.py, each in a process of its own, which computes one round when told.

    echo | python benchmarks/workers.py '{"task": "autoencoder", "competitor": "torch", ...}'

`keras` is the textbook script: UpSampling2D and Conv2D, float32 images in memory, `fit` and
`predict` with their defaults. `torch` is PyTorch as a careful person writes it for a CPU, `ours`
is this program; `_bf16` is their reduced precision. TensorFlow and PyTorch never share a process:
each would hold on to threads that the other one needs.
"""

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.rounds import THREADS, Driver  # noqa: E402
from cae.config.fields import Conv
from cae.config.load import load_config, override
from cae.config.schema import AutoencoderConfig, ClassifierConfig
from cae.data.datasets import get_scaling, load_dataset  # noqa: E402
from cae.training import threads  # noqa: E402

if TYPE_CHECKING:
    import keras
    import torch

NUM_CLASSES = 10
VALIDATION_SHARE = 1 / 6  # of the frozen phase: 10,000 of 60,000 images
FROZEN_EPOCHS = 10
FROZEN_WARM_UP_IMAGES = 1024
OUTPUT_KERNEL = (3, 3)


@dataclass(frozen=True)
class Job:
    """What one worker does.

    Attributes:
        task: A key of `TASKS`.
        competitor: A key of that task.
        dataset: `mnist` or `digits`, repeated where it has too few images.
        images: Images a round.
        rounds: How many, the one to warm up included.
        size: Of the autoencoder: small, medium or large.
        batch_size: Of its training.
    """

    task: str
    competitor: str
    dataset: str
    images: int
    rounds: int
    size: str = "small"
    batch_size: int = 32

    def load_data(self) -> tuple[np.ndarray, np.ndarray]:
        """uint8 images (images, 28, 28, 1), and int64 labels (images,)."""
        data = load_dataset(self.dataset, limit=self.images)
        if len(data.images) == self.images:
            return data.images, data.labels
        shape = (self.images, *data.images.shape[1:])
        return np.resize(data.images, shape), np.resize(data.labels, self.images)

    def load_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """The images as float32 in [0, 1], and the labels."""
        images, labels = self.load_data()
        return np.divide(images, 255, dtype=np.float32), labels

    @property
    def autoencoder(self) -> AutoencoderConfig:
        """Trains on everything, an epoch a round."""
        return override(
            get_config(self.size),
            batch_size=self.batch_size,
            epochs=self.rounds,
            validation_split=0,
            mixed_precision=self.competitor.endswith("_bf16"),
        )

    @property
    def classifier(self) -> ClassifierConfig:
        """Trains only the head, at a constant learning rate."""
        config = load_config(ROOT / "configuration" / "classifier_small_small.json", "classifier")
        config = override(
            config,
            dense_only_train_epochs=FROZEN_EPOCHS,
            full_train_epochs=0,
            validation_split=VALIDATION_SHARE,
        )
        return config.model_copy(update={"learning_rate_schedule": None})


def get_config(size: str) -> AutoencoderConfig:
    """The shipped configuration of the small, medium or large autoencoder."""
    return load_config(ROOT / "configuration" / f"autoencoder_{size}.json", "autoencoder")


def count_parameters(config: AutoencoderConfig, channels: int) -> int:
    """Weights of an autoencoder of `conv`, `pool` and `upSample`, from its configuration."""
    total = 0
    inputs = channels
    for filters, size in _convolutions(config, channels):
        total += filters * (inputs * math.prod(size) + 1)
        inputs = filters
    return total


def _convolutions(config: AutoencoderConfig, channels: int) -> list[tuple[int, tuple[int, int]]]:
    layers = (*config.encoder_layers, *config.decoder_layers)
    hidden = [(layer.filters, layer.kernel_size) for layer in layers if isinstance(layer, Conv)]
    return [*hidden, (channels, OUTPUT_KERNEL)]


def _check_parameters(found: int, config: AutoencoderConfig, channels: int) -> None:
    """Nobody is compared with another architecture."""
    expected = count_parameters(config, channels)
    if found != expected:
        raise AssertionError(f"{expected} parameters expected, {found} found")


# Keras ------------------------------------------------------------------------------------------


def get_plain_autoencoder(
    config: AutoencoderConfig, input_shape: Sequence[int], activation: str = "sigmoid"
) -> "keras.Model":
    """The textbook model of a configuration that has `conv`, `pool` and `upSample` only."""
    import keras

    channels = input_shape[-1]
    model = keras.Sequential(
        [
            keras.Input(input_shape),
            *_plain_layers((*config.encoder_layers, *config.decoder_layers)),
            keras.layers.Conv2D(channels, OUTPUT_KERNEL, padding="same", activation=activation),
        ]
    )
    _check_parameters(model.count_params(), config, channels)
    return model


def _plain_layers(specification: Sequence[tuple]) -> list["keras.Layer"]:
    import keras

    built = []
    for layer in specification:
        match layer:
            case ("conv", filters, size):
                built.append(keras.layers.Conv2D(filters, size, padding="same", activation="relu"))
            case ("pool", size):
                built.append(keras.layers.MaxPooling2D(size))
            case ("upSample", size):
                built.append(keras.layers.UpSampling2D(size))
            case ("drop", rate):
                built.append(keras.layers.Dropout(rate))
            case ("dense", units):
                built.append(keras.layers.Dense(units, activation="relu"))
            case _:
                raise ValueError(f"unknown layer {layer!r}")
    return built


def get_plain_classifier(
    encoder_config: AutoencoderConfig, config: ClassifierConfig, input_shape: Sequence[int]
) -> "keras.Model":
    """The textbook classifier: a frozen encoder and dense layers, compiled."""
    import keras

    encoder = keras.Sequential(
        [keras.Input(input_shape), *_plain_layers(encoder_config.encoder_layers)]
    )
    encoder.trainable = False
    model = keras.Sequential(
        [
            encoder,
            keras.layers.Flatten(),
            *_plain_layers(config.dense_layers),
            keras.layers.Dense(NUM_CLASSES, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(config.optimizer.learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def _round_per_epoch(driver: Driver) -> "keras.callbacks.Callback":
    import keras

    return keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: driver.wait(),
        on_epoch_end=lambda epoch, logs: driver.answer(),
    )


def train_keras_autoencoder(job: Job, driver: Driver) -> None:
    import keras

    config = job.autoencoder
    images, _ = job.load_pixels()
    model = get_plain_autoencoder(config, images.shape[1:])
    model.compile(optimizer=keras.optimizers.Adam(config.optimizer.learning_rate), loss=config.loss)
    for _ in range(config.epochs):
        # A training a round: what an epoch leaves behind must not outlast the other's turns
        # (tf.data's tuner, docs/performance.md).
        model.fit(
            images,
            images,
            batch_size=config.batch_size,
            verbose=0,
            callbacks=[_round_per_epoch(driver)],
        )


def train_keras_head(job: Job, driver: Driver) -> None:
    import keras

    images, labels = job.load_pixels()

    def train(count: int) -> None:
        keras.utils.clear_session()
        split = count - round(count * VALIDATION_SHARE)
        get_plain_classifier(job.autoencoder, job.classifier, images.shape[1:]).fit(
            images[:split],
            labels[:split],
            batch_size=job.classifier.batch_size,
            epochs=FROZEN_EPOCHS,
            verbose=0,
            validation_data=(images[split:count], labels[split:count]),
        )

    _repeat_training(job, driver, train)


def predict_keras(job: Job, driver: Driver) -> None:
    images, _ = job.load_pixels()
    model = get_plain_classifier(job.autoencoder, job.classifier, images.shape[1:])
    _repeat(job, driver, lambda: model.predict(images, verbose=0))


# PyTorch ----------------------------------------------------------------------------------------


def get_torch_autoencoder(config: AutoencoderConfig, channels: int) -> "torch.nn.Module":
    """The same model in PyTorch, to logits: its loss takes them, which is faster and exact."""
    from torch import nn

    layers: list[nn.Module] = []
    inputs = channels
    for layer in (*config.encoder_layers, *config.decoder_layers):
        match layer:
            case ("conv", filters, size):
                layers += [nn.Conv2d(inputs, filters, size, padding="same"), nn.ReLU(inplace=True)]
                inputs = filters
            case ("pool", size):
                layers.append(nn.MaxPool2d(size))
            case ("upSample", size):
                layers.append(nn.Upsample(scale_factor=size))
            case _:
                raise ValueError(f"unknown layer {layer!r}")
    model = nn.Sequential(*layers, nn.Conv2d(inputs, channels, OUTPUT_KERNEL, padding="same"))
    _check_parameters(sum(weights.numel() for weights in model.parameters()), config, channels)
    return model


def train_torch_autoencoder(job: Job, driver: Driver) -> None:
    import torch
    from torch.nn import functional

    torch.set_num_threads(THREADS)
    config = job.autoencoder
    pixels, _ = job.load_pixels()
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)  # NCHW shape over NHWC memory
    images = images.contiguous(memory_format=torch.channels_last)
    model = get_torch_autoencoder(config, images.shape[1])
    model = model.to(memory_format=torch.channels_last)
    # On 2 cores a step of the small model takes 0.1 ms fused and 0.9 ms with foreach.
    optimizer = torch.optim.Adam(model.parameters(), config.optimizer.learning_rate, fused=True)
    for _ in range(config.epochs):
        driver.wait()
        total = torch.zeros(())
        for chosen in torch.randperm(len(images)).split(config.batch_size):
            batch = images[chosen]
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.mixed_precision):
                logits = model(batch)
            loss = functional.binary_cross_entropy_with_logits(logits.float(), batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        if not total.isfinite():
            raise FloatingPointError("the loss is not finite")
        driver.answer()


# Ours -------------------------------------------------------------------------------------------


def train_our_autoencoder(job: Job, driver: Driver) -> None:
    config = job.autoencoder
    cores = threads.choose_cores([config])
    threads.use_cores(cores)
    from cae.training import build
    from cae.training import train as train_module

    images, _ = job.load_data()
    autoencoder = build.get_autoencoder(config, images.shape[1:])
    _check_parameters(autoencoder.count_params(), config, images.shape[-1])
    train_module.train_autoencoder(
        autoencoder,
        config,
        images,
        callbacks=[_round_per_epoch(driver)],
        cores=cores,
        warn=_ignore,
    )


def train_our_head(job: Job, driver: Driver) -> None:
    import keras

    from cae.training import build
    from cae.training import train as train_module

    images, labels = job.load_data()

    def train(count: int) -> None:
        keras.utils.clear_session()
        autoencoder = build.get_autoencoder(job.autoencoder, images.shape[1:])
        classifier = build.get_classifier(
            job.classifier, images.shape[1:], NUM_CLASSES, encoder=autoencoder
        )
        train_module.train_classifier(classifier, job.classifier, images[:count], labels[:count])

    _repeat_training(job, driver, train)


def predict_ours(job: Job, driver: Driver) -> None:
    from cae.training import build, predict

    images, _ = job.load_data()
    autoencoder = build.get_autoencoder(job.autoencoder, images.shape[1:])
    classifier = build.get_classifier(
        job.classifier, images.shape[1:], NUM_CLASSES, encoder=autoencoder
    )
    scaling = get_scaling(images)
    _repeat(job, driver, lambda: predict.predict(classifier, images, scaling))


def _ignore(sentence: str) -> None:
    """A few images for a few epochs may well end in a collapse."""


def _repeat(job: Job, driver: Driver, work: Callable[[], Any]) -> None:
    for _ in range(job.rounds):
        driver.wait()
        work()
        driver.answer()


def _repeat_training(job: Job, driver: Driver, train: Callable[[int], None]) -> None:
    """Rounds of a whole training; a few images are enough to warm up."""
    counts = iter([min(FROZEN_WARM_UP_IMAGES, job.images), *[job.images] * (job.rounds - 1)])
    _repeat(job, driver, lambda: train(next(counts)))


TASKS: dict[str, dict[str, Callable[[Job, Driver], None]]] = {
    "autoencoder": {
        "keras": train_keras_autoencoder,
        "torch": train_torch_autoencoder,
        "torch_bf16": train_torch_autoencoder,
        "ours": train_our_autoencoder,
        "ours_bf16": train_our_autoencoder,
    },
    "frozen_phase": {"keras": train_keras_head, "ours": train_our_head},
    "evaluation": {"keras": predict_keras, "ours": predict_ours},
}


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    TASKS[job.task][job.competitor](job, Driver())


if __name__ == "__main__":
    main()

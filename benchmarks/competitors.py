"""The competitors of run.py. Each runs in its own process and computes one round when told to.

    echo | python benchmarks/competitors.py '{"task": "autoencoder", "competitor": "torch", ...}'

`keras` is the textbook script: UpSampling2D and Conv2D, float32 images in memory, `fit` and
`predict` with their defaults. `torch` is PyTorch as an experienced user writes it (channels last).
`ours` is this program, or another checkout of it, through `model.py`. `_bf16` computes in bfloat16.

This file imports nothing of the program at its top, so that `ours` can come from any checkout.
TensorFlow and PyTorch never share a process: each would hold threads that the other one needs.
"""

import json
import math
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras
    import torch

ROOT = Path(__file__).resolve().parent.parent
NUM_CLASSES = 10
VALIDATION_SHARE = 1 / 6  # of the frozen phase: 10,000 of 60,000 images
FROZEN_EPOCHS = 10
WARM_UP_IMAGES = 1024  # of trainings that are repeated as a whole
OUTPUT_KERNEL = (3, 3)

Config = dict[str, Any]  # of configuration/*.json


@dataclass(frozen=True)
class Job:
    """The work of one competitor.

    Attributes:
        task: A key of `TASKS`.
        competitor: A key of that task.
        data: Folder that holds images.npy and labels.npy.
        images: Images per round.
        rounds: How many, the warm-up included.
        size: Of the autoencoder: small, medium or large.
        batch_size: Of its training.
        checkout: The repository that `ours` is imported from.
    """

    task: str
    competitor: str
    data: str
    images: int
    rounds: int
    size: str = "small"
    batch_size: int = 32
    checkout: str = str(ROOT)

    def load_images(self) -> np.ndarray:
        """uint8 (images, 28, 28, 1)."""
        return np.array(np.load(Path(self.data, "images.npy"), mmap_mode="r")[: self.images])

    def load_pixels(self) -> np.ndarray:
        """The images as float32 in [0, 1]."""
        return np.divide(self.load_images(), 255, dtype=np.float32)

    def load_labels(self) -> np.ndarray:
        """int64 (images,)."""
        return np.load(Path(self.data, "labels.npy"))[: self.images]

    @property
    def autoencoder(self) -> Config:
        """Trains on all images, one epoch per round."""
        return {
            **get_config(f"autoencoder_{self.size}"),
            "batch_size": self.batch_size,
            "epochs": self.rounds,
            "validation_split": 0,
            "mixed_precision": self.competitor.endswith("_bf16"),
        }

    @property
    def classifier(self) -> Config:
        """Trains the head alone (`frozen_phase`), or everything, one epoch per round."""
        frozen = self.task == "frozen_phase"
        return {
            **get_config("classifier_small_small"),
            "dense_only_train_epochs": FROZEN_EPOCHS if frozen else 0,
            "full_train_epochs": 0 if frozen else self.rounds,
            "validation_split": VALIDATION_SHARE if frozen else 0,
            "learning_rate_schedule": None,
        }


def get_config(name: str) -> Config:
    """A shipped configuration."""
    return json.loads((ROOT / "configuration" / f"{name}.json").read_text(encoding="utf-8"))


def count_parameters(config: Config, channels: int) -> int:
    """Weights of an autoencoder of `conv`, `pool` and `upSample`, from its configuration."""
    total, inputs = 0, channels
    layers = [*config["encoder_layers"], *config["decoder_layers"]]
    for kind, *values in [*layers, ("conv", channels, OUTPUT_KERNEL)]:
        if kind == "conv":
            filters, size = values
            total += filters * (inputs * math.prod(size) + 1)
            inputs = filters
    return total


def _check_parameters(found: int, config: Config, channels: int) -> None:
    """Refuses to compare different architectures."""
    expected = count_parameters(config, channels)
    if found != expected:
        raise AssertionError(f"{expected} parameters expected, {found} found")


class Driver:
    """The driver as a competitor sees it: a line in starts a round, a line out ends it.

    Standard output is reserved for the answers; what libraries print there goes to standard error.
    """

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def wait(self) -> None:
        """Blocks until the round may start."""
        if not sys.stdin.readline():
            raise SystemExit("the driver has gone")
        self._start = time.perf_counter()

    def answer(self) -> None:
        """Ends the round."""
        seconds = time.perf_counter() - self._start
        print(json.dumps([seconds, _get_peak_bytes()]), file=self._answers, flush=True)


def _get_peak_bytes() -> int:
    """The most memory that this process has used, without that of the process that started it."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not ru_maxrss, which a process inherits from its parent through fork and exec.
    return int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024


def _round_per_epoch(driver: Driver) -> "keras.callbacks.Callback":
    import keras

    return keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: driver.wait(),
        on_epoch_end=lambda epoch, logs: driver.answer(),
    )


def _repeat(job: Job, driver: Driver, work: Callable[[], Any]) -> None:
    for _ in range(job.rounds):
        driver.wait()
        work()
        driver.answer()


def _repeat_training(job: Job, driver: Driver, train: Callable[[int], None]) -> None:
    """One whole training per round; a few images are enough for the warm-up."""
    counts = iter([min(WARM_UP_IMAGES, job.images), *[job.images] * (job.rounds - 1)])
    _repeat(job, driver, lambda: train(next(counts)))


# Keras ------------------------------------------------------------------------------------------


def get_plain_autoencoder(config: Config, input_shape: Sequence[int]) -> "keras.Model":
    """The textbook model of a configuration without batch normalisation."""
    import keras

    channels = input_shape[-1]
    model = keras.Sequential(
        [
            keras.Input(input_shape),
            *_plain_layers([*config["encoder_layers"], *config["decoder_layers"]]),
            keras.layers.Conv2D(channels, OUTPUT_KERNEL, padding="same", activation="sigmoid"),
        ]
    )
    _check_parameters(model.count_params(), config, channels)
    return model


def _plain_layers(specification: Sequence[Sequence]) -> list["keras.Layer"]:
    from keras import layers

    built = []
    for layer in specification:
        match layer:
            case ["conv", filters, size]:
                built.append(layers.Conv2D(filters, size, padding="same", activation="relu"))
            case ["pool", size]:
                built.append(layers.MaxPooling2D(size))
            case ["upSample", size]:
                built.append(layers.UpSampling2D(size))
            case ["drop", rate]:
                built.append(layers.Dropout(rate))
            case ["dense", units]:
                built.append(layers.Dense(units, activation="relu"))
            case _:
                raise ValueError(f"unknown layer {layer!r}")
    return built


def get_plain_classifier(
    encoder_config: Config, config: Config, input_shape: Sequence[int]
) -> "keras.Model":
    """The textbook classifier: a frozen encoder and dense layers, compiled."""
    import keras

    encoder = keras.Sequential(
        [keras.Input(input_shape), *_plain_layers(encoder_config["encoder_layers"])]
    )
    encoder.trainable = False
    model = keras.Sequential(
        [
            encoder,
            keras.layers.Flatten(),
            *_plain_layers(config["dense_layers"]),
            keras.layers.Dense(NUM_CLASSES, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(config["optimizer"][1]),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def train_keras_autoencoder(job: Job, driver: Driver) -> None:
    import keras

    config, images = job.autoencoder, job.load_pixels()
    model = get_plain_autoencoder(config, images.shape[1:])
    optimizer = keras.optimizers.Adam(config["optimizer"][1])
    model.compile(optimizer=optimizer, loss="binary_crossentropy")
    for _ in range(job.rounds):
        # One `fit` per round: what an epoch leaves behind must not slow down the next competitor
        # (tf.data's tuner, docs/performance.md).
        model.fit(
            images,
            images,
            batch_size=job.batch_size,
            verbose=0,
            callbacks=[_round_per_epoch(driver)],
        )


def train_keras_head(job: Job, driver: Driver) -> None:
    import keras

    config, images, labels = job.classifier, job.load_pixels(), job.load_labels()

    def train(count: int) -> None:
        keras.utils.clear_session()
        split = count - round(count * VALIDATION_SHARE)
        get_plain_classifier(job.autoencoder, config, images.shape[1:]).fit(
            images[:split],
            labels[:split],
            batch_size=config["batch_size"],
            epochs=FROZEN_EPOCHS,
            verbose=0,
            validation_data=(images[split:count], labels[split:count]),
        )

    _repeat_training(job, driver, train)


def predict_keras(job: Job, driver: Driver) -> None:
    images = job.load_pixels()
    model = get_plain_classifier(job.autoencoder, job.classifier, images.shape[1:])
    _repeat(job, driver, lambda: model.predict(images, verbose=0))


# PyTorch ----------------------------------------------------------------------------------------


def get_torch_autoencoder(config: Config, channels: int) -> "torch.nn.Module":
    """The same model in PyTorch, to logits: its loss takes them, which is faster and exact."""
    from torch import nn

    layers: list[nn.Module] = []
    inputs = channels
    for layer in [*config["encoder_layers"], *config["decoder_layers"]]:
        match layer:
            case ["conv", filters, size]:
                layers += [nn.Conv2d(inputs, filters, size, padding="same"), nn.ReLU(inplace=True)]
                inputs = filters
            case ["pool", size]:
                layers.append(nn.MaxPool2d(size))
            case ["upSample", size]:
                layers.append(nn.Upsample(scale_factor=tuple(size)))
            case _:
                raise ValueError(f"unknown layer {layer!r}")
    model = nn.Sequential(*layers, nn.Conv2d(inputs, channels, OUTPUT_KERNEL, padding="same"))
    _check_parameters(sum(weights.numel() for weights in model.parameters()), config, channels)
    return model


def train_torch_autoencoder(job: Job, driver: Driver) -> None:
    import torch
    from torch.nn import functional

    config = job.autoencoder
    images = torch.from_numpy(job.load_pixels()).permute(0, 3, 1, 2)  # NCHW shape over NHWC memory
    images = images.contiguous(memory_format=torch.channels_last)
    model = get_torch_autoencoder(config, images.shape[1])
    model = model.to(memory_format=torch.channels_last)
    # On 2 cores a step of the small model takes 0.1 ms fused and 0.9 ms with foreach.
    optimizer = torch.optim.Adam(model.parameters(), config["optimizer"][1], fused=True)
    for _ in range(job.rounds):
        driver.wait()
        total = torch.zeros(())
        for chosen in torch.randperm(len(images)).split(job.batch_size):
            batch = images[chosen]
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config["mixed_precision"]):
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
    from model import get_autoencoder, train_autoencoder

    config, images = job.autoencoder, job.load_images()
    autoencoder = get_autoencoder(config, images.shape[1:])
    _check_parameters(autoencoder.count_params(), config, images.shape[-1])
    # So little training may end in a collapse, which is no news here: no warnings.
    train_autoencoder(
        autoencoder,
        config,
        images,
        callbacks=[_round_per_epoch(driver)],
        warn=lambda sentence: None,
    )


def _get_our_classifier(job: Job, input_shape: Sequence[int]) -> "keras.Model":
    from model import get_autoencoder, get_classifier

    encoder = get_autoencoder(job.autoencoder, input_shape)
    return get_classifier(job.classifier, input_shape, NUM_CLASSES, encoder=encoder)


def train_our_head(job: Job, driver: Driver) -> None:
    import keras

    from model import train_classifier

    images, labels = job.load_images(), job.load_labels()

    def train(count: int) -> None:
        keras.utils.clear_session()
        classifier = _get_our_classifier(job, images.shape[1:])
        train_classifier(classifier, job.classifier, images[:count], labels[:count])

    _repeat_training(job, driver, train)


def train_our_classifier(job: Job, driver: Driver) -> None:
    from model import train_classifier

    images, labels = job.load_images(), job.load_labels()
    classifier = _get_our_classifier(job, images.shape[1:])
    callbacks = [_round_per_epoch(driver)]
    train_classifier(classifier, job.classifier, images, labels, callbacks=callbacks)


def predict_ours(job: Job, driver: Driver) -> None:
    from cae.data.datasets import get_scaling
    from model import predict

    images = job.load_images()
    classifier = _get_our_classifier(job, images.shape[1:])
    scaling = get_scaling(images)
    _repeat(job, driver, lambda: predict(classifier, images, scaling))


TASKS: dict[str, dict[str, Callable[[Job, Driver], None]]] = {
    "autoencoder": {
        "keras": train_keras_autoencoder,
        "torch": train_torch_autoencoder,
        "torch_bf16": train_torch_autoencoder,
        "ours": train_our_autoencoder,
        "ours_bf16": train_our_autoencoder,
    },
    "frozen_phase": {"keras": train_keras_head, "ours": train_our_head},
    "full_phase": {"ours": train_our_classifier},
    "evaluation": {"keras": predict_keras, "ours": predict_ours},
}


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    sys.path.insert(0, job.checkout)
    TASKS[job.task][job.competitor](job, Driver())


if __name__ == "__main__":
    main()

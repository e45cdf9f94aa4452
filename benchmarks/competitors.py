"""The competitors of run.py. Each runs in its own process and computes one round when told to.

    echo | python benchmarks/competitors.py '{"task": "autoencoder", "competitor": "torch", ...}'

`keras` is the textbook script: UpSampling2D and Conv2D, float32 images in memory, `fit` and
`predict` with their defaults. `torch` is PyTorch as an experienced user writes it (channels last),
`torch_compile` the same with `torch.compile`. `ours` is this program, or another checkout of it,
through `model.py`. `_bf16` computes in bfloat16. `model` is a classifier alone on images in memory,
beside which `ours` classifies the same images from PNG files.

This file imports nothing of the program at its top, so that `ours` can come from any checkout.
TensorFlow and PyTorch never share a process: each would hold threads that the other one needs.
"""

import json
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
PARAMETERS = {"small": 74_497, "medium": 332_801, "large": 1_365_505}  # of the autoencoders
RECIPE = "few_labels_100"  # whose classifier is measured, beside the small one
EVERY_CHANGE = {
    "rotation": 20, "shear": 15, "shift": 0.1, "zoom": 0.15, "noise": 0.1, "cutout": 0.3,
    "mask": 0.1
}  # fmt: skip

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
        size: Of the autoencoder: small, medium or large; for `answers` and `augmentation`, small
            or `RECIPE`.
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
            "augmentation": EVERY_CHANGE if self.changes_images else None,
        }

    @property
    def recipe(self) -> Config:
        """The classifier of `RECIPE`, one epoch per round, with labels spread once."""
        config = get_config(f"recipes/{RECIPE}")["classifier"]
        how = config["unlabelled"]
        how["label_spreading"] |= {"refresh": None, "last_share": None}
        if not self.changes_images:
            how["strong"] = dict.fromkeys(EVERY_CHANGE, 0)
            config["augmentation"] = None
        return config | {"full_train_epochs": self.rounds, "min_steps": 0}

    @property
    def changes_images(self) -> bool:
        """Whether images are changed at random, which `augmentation` measures."""
        return self.task == "augmentation" and self.competitor == "ours"

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
    """A shipped configuration, without its description, which earlier checkouts do not know."""
    text = (ROOT / "configuration" / f"{name}.json").read_text(encoding="utf-8")
    return {key: value for key, value in json.loads(text).items() if key != "description"}


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

    def as_callback(self) -> "keras.callbacks.Callback":
        """A round per epoch."""
        import keras

        return keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: self.wait(),
            on_epoch_end=lambda epoch, logs: self.answer(),
        )

    def repeat(self, rounds: int, work: Callable[[], Any]) -> None:
        for _ in range(rounds):
            self.wait()
            work()
            self.answer()


def _get_peak_bytes() -> int:
    """The most memory that this process has used, without that of the process that started it."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not ru_maxrss, which a process inherits from its parent through fork and exec.
    return int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024


def _repeat_training(job: Job, driver: Driver, train: Callable[[int], None]) -> None:
    """One whole training per round; a few images are enough for the warm-up."""
    import keras

    counts = iter([min(WARM_UP_IMAGES, job.images), *[job.images] * (job.rounds - 1)])

    def train_anew() -> None:
        keras.utils.clear_session()
        train(next(counts))

    driver.repeat(job.rounds, train_anew)


# Keras ------------------------------------------------------------------------------------------


def _plain_layers(specification: Sequence[Sequence]) -> list["keras.Layer"]:
    from keras import layers

    build = {
        "conv": lambda *args: layers.Conv2D(*args, padding="same", activation="relu"),
        "pool": layers.MaxPooling2D,
        "upSample": layers.UpSampling2D,
        "drop": layers.Dropout,
        "dense": lambda units: layers.Dense(units, activation="relu"),
    }
    return [build[kind](*values) for kind, *values in specification]


def get_plain_autoencoder(config: Config, input_shape: Sequence[int]) -> "keras.Model":
    """The textbook model of a configuration without batch normalisation."""
    import keras

    channels = input_shape[-1]
    hidden = _plain_layers([*config["encoder_layers"], *config["decoder_layers"]])
    output = keras.layers.Conv2D(channels, OUTPUT_KERNEL, padding="same", activation="sigmoid")
    return keras.Sequential([keras.Input(input_shape), *hidden, output])


def get_plain_classifier(
    encoder_config: Config, config: Config, input_shape: Sequence[int]
) -> "keras.Model":
    """The textbook classifier: a frozen encoder and dense layers, compiled."""
    import keras

    encoder = keras.Sequential(
        [keras.Input(input_shape), *_plain_layers(encoder_config["encoder_layers"])]
    )
    encoder.trainable = False
    hidden = _plain_layers(config["dense_layers"])
    output = keras.layers.Dense(NUM_CLASSES, activation="softmax")
    model = keras.Sequential([encoder, keras.layers.Flatten(), *hidden, output])
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
    # One `fit` per round: what an epoch leaves behind must not slow down the next competitor
    # (tf.data's tuner, docs/performance.md).
    for _ in range(job.rounds):
        callbacks = [driver.as_callback()]
        model.fit(images, images, batch_size=job.batch_size, verbose=0, callbacks=callbacks)


def train_keras_head(job: Job, driver: Driver) -> None:
    images, labels = job.load_pixels(), job.load_labels()

    def train(count: int) -> None:
        split = count - round(count * VALIDATION_SHARE)
        get_plain_classifier(job.autoencoder, job.classifier, images.shape[1:]).fit(
            images[:split],
            labels[:split],
            batch_size=job.classifier["batch_size"],
            epochs=FROZEN_EPOCHS,
            verbose=0,
            validation_data=(images[split:count], labels[split:count]),
        )

    _repeat_training(job, driver, train)


def predict_keras(job: Job, driver: Driver) -> None:
    images = job.load_pixels()
    model = get_plain_classifier(job.autoencoder, job.classifier, images.shape[1:])
    driver.repeat(job.rounds, lambda: model.predict(images, verbose=0))


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
    return nn.Sequential(*layers, nn.Conv2d(inputs, channels, OUTPUT_KERNEL, padding="same"))


def train_torch_autoencoder(job: Job, driver: Driver) -> None:
    import torch
    from torch.nn import functional

    config = job.autoencoder
    images = torch.from_numpy(job.load_pixels()).permute(0, 3, 1, 2)  # NCHW shape over NHWC memory
    images = images.contiguous(memory_format=torch.channels_last)
    model = get_torch_autoencoder(config, images.shape[1])
    model = model.to(memory_format=torch.channels_last)
    if sum(weights.numel() for weights in model.parameters()) != PARAMETERS[job.size]:
        raise AssertionError("PyTorch's autoencoder must have the layers of the others")
    # On 2 cores a step of the small model takes 0.1 ms fused and 0.9 ms with foreach.
    optimizer = torch.optim.Adam(model.parameters(), config["optimizer"][1], fused=True)

    def compute_loss(batch: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config["mixed_precision"]):
            logits = model(batch)
        return functional.binary_cross_entropy_with_logits(logits.float(), batch)

    if job.competitor.startswith("torch_compile"):
        compute_loss = torch.compile(compute_loss)

    def train() -> None:
        total = torch.zeros(())
        for chosen in torch.randperm(len(images)).split(job.batch_size):
            loss = compute_loss(images[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        if not total.isfinite():
            raise FloatingPointError("the loss is not finite")

    driver.repeat(job.rounds, train)


# Ours -------------------------------------------------------------------------------------------


def train_our_autoencoder(job: Job, driver: Driver) -> None:
    from model import get_autoencoder, train_autoencoder

    config, images = job.autoencoder, job.load_images()
    autoencoder = get_autoencoder(config, images.shape[1:])
    # So little training may end in a collapse, which is no news here: no warnings.
    quiet = {"callbacks": [driver.as_callback()], "warn": lambda sentence: None}
    train_autoencoder(autoencoder, config, images, **quiet)


def _get_our_classifier(job: Job, input_shape: Sequence[int]) -> "keras.Model":
    from model import get_autoencoder, get_classifier

    if job.size == RECIPE:
        configs = get_config(f"recipes/{RECIPE}")
    else:
        configs = {"autoencoder": job.autoencoder, "classifier": job.classifier}
    encoder = get_autoencoder(configs["autoencoder"], input_shape)
    return get_classifier(configs["classifier"], input_shape, NUM_CLASSES, encoder=encoder)


def train_our_head(job: Job, driver: Driver) -> None:
    from model import train_classifier

    images, labels = job.load_images(), job.load_labels()

    def train(count: int) -> None:
        classifier = _get_our_classifier(job, images.shape[1:])
        train_classifier(classifier, job.classifier, images[:count], labels[:count])

    _repeat_training(job, driver, train)


def train_our_classifier(job: Job, driver: Driver) -> None:
    from model import train_classifier

    images, labels = job.load_images(), job.load_labels()
    classifier = _get_our_classifier(job, images.shape[1:])
    callbacks = [driver.as_callback()]
    train_classifier(classifier, job.classifier, images, labels, callbacks=callbacks)


def train_with_changes(job: Job, driver: Driver) -> None:
    """The small autoencoder, or the classifier of the recipe with 100 labelled images."""
    if job.size != RECIPE:
        train_our_autoencoder(job, driver)
        return
    from model import train_classifier

    images, labels = job.load_images(), job.load_labels()
    classifier = _get_our_classifier(job, images.shape[1:])
    quiet = {"callbacks": [driver.as_callback()], "warn": lambda sentence: None}
    train_classifier(
        classifier, job.recipe, images[:100], labels[:100], unlabelled=images[100:], **quiet
    )


def predict_ours(job: Job, driver: Driver) -> None:
    from cae.data.datasets import get_scaling
    from model import predict

    images = job.load_images()
    classifier = _get_our_classifier(job, images.shape[1:])
    scaling = get_scaling(images)
    driver.repeat(job.rounds, lambda: predict(classifier, images, scaling))


def predict_by_keras(job: Job, driver: Driver) -> None:
    """The same model as below, by Keras alone, in batches that suit it."""
    images = job.load_pixels()
    classifier = _get_our_classifier(job, images.shape[1:])
    driver.repeat(job.rounds, lambda: classifier.predict(images, batch_size=512, verbose=0))


def answer_from_files(job: Job, driver: Driver) -> None:
    """`predict.py classify` without its output: PNG files to calibrated answers."""
    from PIL import Image

    images, folder = job.load_images(), Path(job.data, "png")
    if not folder.exists():
        folder.mkdir()
        for index, image in enumerate(images):
            Image.fromarray(image[..., 0]).save(folder / f"{index:05}.png")
    _answer(job, driver, folder)


def answer_from_array(job: Job, driver: Driver) -> None:
    """The same from one `.npy` file."""
    path = Path(job.data, "asked.npy")
    np.save(path, job.load_images())
    _answer(job, driver, path)


def _answer(job: Job, driver: Driver, asked: Path) -> None:
    from cae.data.datasets import get_scaling
    from cae.data.inputs import Expected
    from cae.data.pictures import Form
    from cae.programs.classify import Classifier, ask
    from cae.records.calibration import UNCALIBRATED, Typical
    from cae.training.build import with_summary
    from model import predict

    images = job.load_images()
    model = with_summary(_get_our_classifier(job, images.shape[1:]))
    scaling = get_scaling(images)
    summaries = predict(model, images[:100], scaling)[:, :-NUM_CLASSES]
    classifier = Classifier(
        model,
        Expected(Form(*images.shape[1:]), scaling),
        np.arange(NUM_CLASSES),
        [str(label) for label in range(NUM_CLASSES)],
        UNCALIBRATED,
        Typical.fit(summaries, summaries),
    )

    def answer() -> None:
        found = sum(len(answers.part.images) for answers in ask(classifier, [str(asked)]))
        if found != len(images):
            raise AssertionError(f"{found} answers instead of {len(images)}")

    driver.repeat(job.rounds, answer)


TASKS: dict[str, dict[str, Callable[[Job, Driver], None]]] = {
    "autoencoder": {
        "keras": train_keras_autoencoder,
        "torch": train_torch_autoencoder,
        "torch_compile": train_torch_autoencoder,
        "torch_bf16": train_torch_autoencoder,
        "torch_compile_bf16": train_torch_autoencoder,
        "ours": train_our_autoencoder,
        "ours_bf16": train_our_autoencoder,
    },
    "frozen_phase": {"keras": train_keras_head, "ours": train_our_head},
    "full_phase": {"ours": train_our_classifier},
    "augmentation": {"unchanged": train_with_changes, "ours": train_with_changes},
    "evaluation": {"keras": predict_keras, "ours": predict_ours},
    "answers": {
        "keras": predict_by_keras,
        "model": predict_ours,
        "ours": answer_from_array,
        "ours_files": answer_from_files,
    },
}


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    sys.path.insert(0, job.checkout)
    TASKS[job.task][job.competitor](job, Driver())


if __name__ == "__main__":
    main()

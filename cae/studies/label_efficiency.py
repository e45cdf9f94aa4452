"""What pretraining is worth at how many labels: one classifier with and without it, and baselines.

python experiments.py label-efficiency -d mnist -model models/small.keras

Every method gets the same labels, those for validation included, and every network the same
number of optimizer steps; the test images are classified once by each final model. As advised by
Oliver et al. 2018, "Realistic evaluation of deep semi-supervised learning algorithms",
arXiv:1804.09170.
"""

import argparse
import csv
import hashlib
import io
import json
import math
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich.text import Text

from cae import terminal
from cae.config.load import load_config
from cae.config.schema import ClassifierConfig
from cae.config.shapes import format_shape
from cae.data import duplicates, splits
from cae.data.datasets import check_dataset, check_same_kind, load_dataset
from cae.data.named import NAMED_DATASETS
from cae.data.splits import get_classes, split_validation
from cae.errors import DataError, UsageError, UserError
from cae.files import get_record, locked, replace_file, write_figure
from cae.programs import start as start_module
from cae.programs.starting_points import check_model_shape, choose_scaling
from cae.records.environment import describe_environment
from cae.records.run import check_runs_dir
from cae.records.saved_models import find_encoder, load_model
from cae.studies.intervals import Estimate
from cae.studies.label_results import (
    ALL,
    COUNTS,
    FINE_TUNED,
    FROZEN,
    METHODS,
    NEIGHBOURS,
    PCA,
    PIXELS,
    SCRATCH,
    Measurement,
    conclude,
    get_curves,
    get_table,
    read_results,
    summarize,
)
from cae.studies.progress import format_duration
from cae.training import frozen

NETWORKS = (FROZEN, FINE_TUNED, SCRATCH)
CONFIG = "configuration/classifier_small_small.json"
# The files of a comparison and what they hold, for docs/reference.md.
FILES = {
    "results.csv": "one row per method, number of labels and seed: labels in all and for "
    "validation, steps, test error, seconds",
    "summary.csv": "means over seeds, and half the width of their 95 % intervals",
    "conclusion.txt": "the sentences printed at the end",
    "label_efficiency.png": "the figure",
    "order_<seed>.json": "the order of the images from which all subsets of a seed are taken, with "
    "its SHA-256 and that of the data",
    "environment.json": "command, versions, git commit and data files of the latest start",
    "settings.json": "what the results depend on; a start with other settings is refused",
}
STEPS = 2000
# With fewer labels than a batch holds, a step is an epoch; more of them than this change nothing.
MAX_EPOCHS = 500
VALIDATION_SHARE = 0.2
# Inverse strengths of L2, of which validation labels choose; without them the second.
LOGISTIC_C = (0.1, 1.0, 10.0)
LOGISTIC_ITERATIONS = 200
MANY_VALUES = 10**7  # of a matrix whose products are worth several threads
PCA_COMPONENTS = 50
PCA_IMAGES = 10_000  # from which the components are computed
NUM_NEIGHBOURS = 5


def run(args: argparse.Namespace) -> int:
    """Measures what is not yet measured, then shows and saves the comparison.

    Returns:
        The exit code: 0, 2 when a training failed, or 128 plus the signal that stopped it.
    """
    config = load_config(args.config, "classifier")
    _check_files(args)
    study = Study(args, config)
    with ExitStack() as lock:
        study.open(lock)
        exit_code = study.measure()
        if study.results and exit_code < 128:
            study.report()
    return exit_code


def _check_files(args: argparse.Namespace) -> None:
    """Checks what headers tell, before anything is loaded."""
    _, shape = check_dataset(args.dataset, args.labels, labels_required=True)
    check_model_shape(args.model, shape)
    if not args.test and args.dataset not in NAMED_DATASETS:
        raise UsageError("-t", "test images are required", "none", "Add -t TEST -tl TEST_LABELS.")
    test = args.test or args.dataset
    others = [(test, check_dataset(test, args.test_labels, split="test", labels_required=True)[1])]
    if args.pretraining:
        others.append((args.pretraining, check_dataset(args.pretraining)[1]))
    for name, other_shape in others:
        if other_shape != shape:
            raise DataError(
                name,
                f"must hold images of the training images' shape {format_shape(shape)}",
                format_shape(other_shape),
                "Give images of that height, width and number of channels.",
            )
    check_runs_dir(args.runs_dir)


class Study:
    """The results of one autoencoder on one data set, in one folder.

    Args:
        args: The flags.
        config: Head, optimizer and batch size of the classifiers.

    Attributes:
        results: What has been measured, in that order.
    """

    def __init__(self, args: argparse.Namespace, config: ClassifierConfig):
        self.args = args
        self.config = config
        self.data = load_dataset(args.dataset, args.labels, limit=args.limit, labels_required=True)
        self.test = load_dataset(
            args.test or args.dataset, args.test_labels, split="test", labels_required=True
        )
        self.pretraining = load_dataset(args.pretraining).images if args.pretraining else None
        self.scaling = choose_scaling(args.model, self.data)
        check_same_kind(self.scaling, self.test.images, self.test.name)
        self.classes = get_classes(self.data.labels)
        self.counts = self._choose_counts()
        self.folder = Path(args.runs_dir) / (args.name or f"label-efficiency-{self.data.name}")
        self.results: list[Measurement] = []

    def open(self, lock: ExitStack) -> None:
        """Looks for shared images, and reads or begins the folder.

        Args:
            lock: Keeps other programs away from the folder until it is left.

        Raises:
            UsageError: Another program is measuring in it.
            DataError: Images are shared and that is not allowed, or the folder belongs to another
                study, or a file of it is damaged.
        """
        data, test = (
            duplicates.hash_images(self.data.images),
            duplicates.hash_images(self.test.images),
        )
        before = data if self.pretraining is None else duplicates.hash_images(self.pretraining)
        settings = {
            "data": _digest(data, self.data.labels),
            "test": _digest(test, self.test.labels),
            "pretraining": _digest(before),
            "model": get_record(self.args.model)["sha256"],
            "config": self.config.model_dump(mode="json"),
            "steps": self.args.steps,
            "max_epochs": MAX_EPOCHS,
            "validation_share": VALIDATION_SHARE,
            "leakage": self._find_leakage(before, data, test),
        }
        with _writing(self.folder):
            self.folder.mkdir(exist_ok=True)
            lock.enter_context(locked(self.folder))
            _keep_settings(self.folder / "settings.json", settings)
            _write_json(self.folder / "environment.json", self._describe_environment())
            results = self.folder / "results.csv"
            self.results = read_results(results) if results.exists() else []
            self.orders = [
                splits.keep_order(
                    self.folder / f"order_{seed}.json", self.data.labels, seed, settings["data"]
                )
                for seed in range(self.args.seeds)
            ]

    def _describe_environment(self) -> dict[str, Any]:
        """Of the latest start."""
        return describe_environment(
            self.args.command, {"training": self.data, "test": self.test}, device=None, seed=None
        )

    def measure(self) -> int:
        """Trains and tests every model that has no result yet; returns the exit code."""
        known = {result.key for result in self.results}
        keys = [
            (seed, count, method)
            for seed in range(self.args.seeds)
            for count in self.counts
            for method in self.args.methods
        ]
        missing = [key for key in keys if key not in known]
        if any(method not in (PIXELS, PCA) for *_, method in missing):
            with terminal.starting_keras():
                self.autoencoder, _ = load_model(self.args.model)
        exit_code = 0
        with start_module.StopSignal() as self.stop, frozen.sharing():
            for number, key in enumerate(missing, 1):
                try:
                    result = self._measure(*key)
                except UserError as error:
                    exit_code = terminal.report(error)  # and on with the others
                    continue
                if self.stop.requested():  # in the middle of a training
                    terminal.warn(
                        "The results so far are saved; the same command goes on from there."
                    )
                    return self.stop.exit_code
                self.results.append(result)
                _write_csv(self.folder / "results.csv", [row.model_dump() for row in self.results])
                left = format_duration(self._estimate(missing[number:]))
                terminal.ERR.print(
                    f"[{len(keys) - len(missing) + number}/{len(keys)}] {METHODS[result.method]}, "
                    f"{result.labels:,} labels, seed {result.seed}: test error "
                    f"{result.test_error:.2%} ({result.seconds:.1f} s, about {left} left)"
                )
        return exit_code

    def _estimate(self, keys: list[tuple[int, str, str]]) -> float:
        """Seconds for what is missing: the mean of the same method and labels with other seeds."""
        seconds = defaultdict(list)
        for result in self.results:
            seconds[result.per_class, result.method].append(result.seconds)
        known = [result.seconds for result in self.results]
        return sum(fmean(seconds.get((count, method), known)) for _, count, method in keys)

    def report(self) -> None:
        """Prints the table and the conclusion, and saves both, and the figure."""
        errors = summarize(self.results)
        rows = [
            {
                "method": method,
                "labels": labels,
                "seeds": error.seeds,
                "test_error": round(error.mean, 6),
                "margin": round(error.margin, 6) if math.isfinite(error.margin) else "",
            }
            for (method, labels), error in sorted(errors.items())
        ]
        _write_csv(self.folder / "summary.csv", rows)
        sentences = conclude(self.results)
        _write(self.folder / "conclusion.txt", "\n".join([*sentences, ""]).encode())
        self._draw(errors)
        terminal.print_table(get_table(errors))
        for sentence in sentences:
            terminal.say(sentence)
        terminal.say(f"Results: {terminal.relative(self.folder)}")

    def _draw(self, errors: dict[tuple[str, int], Estimate]) -> None:
        from cae.figures.comparisons import label_efficiency_visualization

        write_figure(
            self.folder / "label_efficiency.png", label_efficiency_visualization(get_curves(errors))
        )

    def _choose_counts(self) -> list[str]:
        """The asked numbers of labels per class; by default those that the data set has."""
        _, available = np.unique(self.data.labels, return_counts=True)
        fewest = int(available.min())
        if len(self.classes) < 2:
            raise DataError(
                self.args.labels or self.args.dataset,
                "the training labels must name at least two classes",
                f"only {self.classes[0]}",
                "Give more images (a larger --limit), or other labels.",
            )
        if self.args.counts is None:
            return [count for count in COUNTS if count == ALL or int(count) < fewest]
        for count in self.args.counts:
            if count != ALL and int(count) > fewest:
                raise UsageError(
                    "--counts",
                    f"must be at most {fewest}, the images of the smallest class",
                    count,
                    f"Give fewer, or {ALL}.",
                )
        return list(dict.fromkeys(self.args.counts))

    def _find_leakage(self, before: np.ndarray, data: np.ndarray, test: np.ndarray) -> list[str]:
        """Reports shared images, and refuses those that are tested on."""
        hashes = {"pretraining": before, "training": data, "test": test}
        if self.pretraining is None:
            del hashes["pretraining"]  # they are the training images
        overlaps = duplicates.find_overlaps(hashes)
        for overlap in overlaps:
            if overlap.second == "test" and not self.args.allow_leakage:
                overlap.refuse(self.args.test or self.args.dataset)
        facts = [str(overlap) for overlap in overlaps]
        repeats = len(duplicates.find_repeats(data))
        # The validation images are drawn from the training images.
        facts.append(
            f"{repeats or 'none'} of the training images again among them, "
            "so perhaps for training and for validation"
        )
        for fact in facts:
            terminal.ERR.print(Text(f"Exact duplicates: {fact}"))
        return facts

    def _measure(self, seed: int, count: str, method: str) -> Measurement:
        start = time.perf_counter()
        size = len(self.data.labels) if count == ALL else int(count) * len(self.classes)
        chosen = self.orders[seed][:size]
        labels = self.data.labels[chosen]
        share = validation_share(count)
        training, validation = split_validation(size, share, seed, labels)
        steps = 0
        if method in NETWORKS:
            plan = plan_training(self.config, method, len(training), self.args.steps)
            plan = plan.model_copy(update={"validation_split": share, "seed": seed})
            predictions, epochs = self._train(plan, chosen, method)
            steps = epochs * math.ceil(len(training) / plan.batch_size)
        elif method == NEIGHBOURS:
            predictions = self._votes_of_all if count == ALL else self._vote(chosen)
        else:
            predictions = self._regress(chosen, validation, method)
        return Measurement(
            method=method,
            per_class=count,
            seed=seed,
            labels=size,
            validation_labels=len(validation),
            steps=steps,
            test_error=round(float(np.mean(predictions != self.test.labels)), 6),
            seconds=round(time.perf_counter() - start, 2),
        )

    def _train(
        self, config: ClassifierConfig, chosen: np.ndarray, method: str
    ) -> tuple[np.ndarray, int]:
        """Predicted labels of the test images, and the epochs trained."""
        from cae.training.build import get_classifier
        from cae.training.predict import predict
        from cae.training.train import train_classifier

        pretrained = method != SCRATCH
        images, labels = self.data.images[chosen], self.data.labels[chosen]
        model = get_classifier(
            config,
            images.shape[1:],
            len(self.classes),
            encoder=self.autoencoder,
            pretrained=pretrained,
        )
        history = train_classifier(
            model,
            config,
            images,
            labels,
            classes=self.classes,
            scaling=self.scaling,
            pretrained=pretrained,
            name=METHODS[method],
            should_stop=self.stop.requested,
        )
        probabilities = predict(model, self.test.images, self.scaling)
        return self.classes[probabilities.argmax(axis=1)], len(history.epochs)

    def _vote(self, chosen: np.ndarray) -> np.ndarray:
        """Labels of the nearest encodings, nearer ones counting more; nothing is chosen."""
        from sklearn.neighbors import KNeighborsClassifier

        encodings, test_encodings = self._encodings
        neighbours = min(NUM_NEIGHBOURS, max(1, len(chosen) // len(self.classes)))
        voters = KNeighborsClassifier(neighbours, weights="distance", algorithm="brute")
        voters.fit(encodings[np.searchsorted(self._used, chosen)], self.data.labels[chosen])
        return voters.predict(test_encodings)

    @cached_property
    def _votes_of_all(self) -> np.ndarray:
        """All labels vote the same whatever the seed; on 60,000 it takes a minute."""
        return self._vote(np.arange(len(self.data.labels)))

    def _regress(self, chosen: np.ndarray, validation: np.ndarray, method: str) -> np.ndarray:
        """Labels by logistic regression on pixels, or on their principal components."""
        inputs, test_inputs = self._pixels(self.data.images[chosen]), self._test_pixels
        if method == PCA:
            inputs = self._components.transform(inputs)
            test_inputs = self._components.transform(test_inputs)
        return fit_logistic(inputs, self.data.labels[chosen], validation).predict(test_inputs)

    def _pixels(self, images: np.ndarray) -> np.ndarray:
        return self.scaling.apply(images).reshape(len(images), -1)

    @cached_property
    def _test_pixels(self) -> np.ndarray:
        return self._pixels(self.test.images)

    @cached_property
    def _components(self) -> Any:
        """Principal components of the images that the autoencoder learned from."""
        from sklearn import decomposition

        images = self.data.images if self.pretraining is None else self.pretraining
        chosen = np.random.default_rng(0).permutation(len(images))[:PCA_IMAGES]
        pixels = self._pixels(images[np.sort(chosen)])
        components = decomposition.PCA(min(PCA_COMPONENTS, *pixels.shape), random_state=0)
        return components.fit(pixels)

    @cached_property
    def _used(self) -> np.ndarray:
        """int64, ascending: the training images of all subsets."""
        if ALL in self.counts:
            return np.arange(len(self.data.labels))
        size = max(map(int, self.counts)) * len(self.classes)
        return np.unique(np.concatenate([order[:size] for order in self.orders]))

    @cached_property
    def _encodings(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the used training images and of the test images, float32 (num_images, size)."""
        from cae.training.predict import predict

        encoder = find_encoder(self.autoencoder, self.args.model)
        training = predict(encoder, self.data.images, self.scaling, self._used)
        test = predict(encoder, self.test.images, self.scaling)
        return training.reshape(len(training), -1), test.reshape(len(test), -1)


def validation_share(count: str) -> float:
    """Which part of the labels chooses the best epoch: a fifth, at least one label of each class.

    With one label per class there is none to spare: the epoch with the best training accuracy is
    kept, of equals the one with the lowest training loss.
    """
    if count == ALL:
        return VALIDATION_SHARE
    return 0.0 if int(count) == 1 else max(VALIDATION_SHARE, 1 / int(count))


def plan_training(
    config: ClassifierConfig, method: str, num_training: int, steps: int
) -> ClassifierConfig:
    """The configuration with epochs for a number of optimizer steps, the same for every network.

    Args:
        config: Its two numbers of epochs say how fine-tuning divides the steps.
        method: One of `NETWORKS`.
        num_training: Images to train on.
        steps: Rounded to whole epochs, of which there are 1 to `MAX_EPOCHS`.
    """
    steps_per_epoch = math.ceil(num_training / config.batch_size)
    epochs = min(MAX_EPOCHS, max(1, round(steps / steps_per_epoch)))
    head, full = config.dense_only_train_epochs, config.full_train_epochs
    frozen = {FROZEN: epochs, FINE_TUNED: round(epochs * head / (head + full)), SCRATCH: 0}[method]
    return config.model_copy(
        update={
            "dense_only_train_epochs": frozen,
            "full_train_epochs": epochs - frozen,
            "early_stopping": None,
            "encoder_layers": None,
        }
    )


def fit_logistic(inputs: np.ndarray, labels: np.ndarray, validation: np.ndarray) -> Any:
    """Logistic regression whose strength of L2 the validation labels choose.

    Args:
        inputs: float32 (num_images, num_features).
        labels: int64 (num_images,), validation labels included.
        validation: Positions of those; empty takes the default strength.

    Returns:
        scikit-learn's classifier, fitted with the chosen strength to all labels.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from threadpoolctl import threadpool_limits

    model = LogisticRegression(C=LOGISTIC_C[1], max_iter=LOGISTIC_ITERATIONS)
    if len(validation):
        fold = np.full(len(labels), -1)  # always trained on
        fold[validation] = 0
        model = GridSearchCV(model, {"C": LOGISTIC_C}, cv=PredefinedSplit(fold))
    # On small products several threads wait for each other: 1 s became 26 on a busy machine.
    threads = None if inputs.size >= MANY_VALUES else 1
    with threadpool_limits(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the iterations are a budget
        return model.fit(inputs, labels)


def _digest(hashes: np.ndarray, labels: np.ndarray | None = None) -> str:
    """SHA-256 of images, by their hashes, and labels, whatever files they come from."""
    digest = hashlib.sha256(hashes.astype("<u8").tobytes())
    if labels is not None:
        digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _keep_settings(path: Path, settings: dict[str, Any]) -> None:
    """Writes what the results depend on, or compares it with what is there."""
    if not path.exists():
        return _write_json(path, settings)
    try:
        before = dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(path, "must be JSON", error, "Measure anew with another --name.") from error
    for key, value in settings.items():
        if before.get(key) != value:
            raise DataError(
                path,
                f"must be measured with the same {key} as before",
                "another",
                "Give a new --name, or the same flags and files as before.",
            )
    return None


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _write(path, text.getvalue().encode())


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write(path, (json.dumps(content, indent=2) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    with _writing(path), replace_file(path) as file:
        file.write(content)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            path, "must be writable", error.strerror, "Free space, or give --runs-dir."
        ) from error

"""Trains classifiers on the encoder of a saved autoencoder, and tests them.

python classification.py -d mnist -model models/small.keras
python classification.py -d TRAIN -dl LABELS -t TEST -tl TEST_LABELS -model MODEL
"""

import argparse
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cae import prompts, terminal
from cae.config.fields import MAX_BATCH_SIZE, MAX_EPOCHS, MAX_UNITS
from cae.config.load import load_config, validate_config
from cae.config.schema import ClassifierConfig
from cae.config.shapes import check_shapes, format_shape
from cae.data.datasets import (
    Dataset,
    Scaling,
    check_dataset,
    check_same_kind,
    get_scaling,
    load_dataset,
)
from cae.data.duplicates import find_overlaps, hash_images
from cae.data.named import NAMED_DATASETS
from cae.errors import DataError, ModelFileError, UsageError
from cae.files import write_csv, write_json, write_text
from cae.programs import describe as describe_module
from cae.programs import flags, start
from cae.programs.session import (
    INSPECTED_IMAGES,
    Experiment,
    OnEpoch,
    Session,
    ask_for_file,
    ask_optimizer,
    offer_to_save,
)
from cae.programs.starting_points import (
    check_destinations,
    check_model_shape,
    choose_scaling,
    override_by_flags,
    read_configs,
)
from cae.records.evaluation import Evaluation, evaluate
from cae.records.history import History
from cae.records.run import Run
from cae.records.saved_models import load_model, read_metadata
from cae.terminal import OUT

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

Shape = tuple[int, int, int]


def build_parser() -> flags.Parser:
    """The command line of this program."""
    parser = flags.Parser(prog="classification.py", description=__doc__)
    names = ", ".join(NAMED_DATASETS)
    parser.add_argument(
        "-d",
        "--dataset",
        metavar="TRAIN",
        help=f"an idx file of training images, or {names} (then -dl, -t and -tl come with it)",
    )
    parser.add_argument("-dl", "--labels", metavar="LABELS", help="labels of the training images")
    parser.add_argument("-t", "--test", metavar="TEST", help="an idx file of test images")
    parser.add_argument(
        "-tl", "--test-labels", metavar="TEST_LABELS", help="labels of the test images"
    )
    parser.add_argument(
        "-model",
        "--model",
        metavar="MODEL",
        help="a saved autoencoder or classifier (.keras or .h5) whose encoder is used; "
        "goes before encoder_layers of the configuration",
    )
    parser.add_argument(
        "--no-pretrained",
        action="store_true",
        help="start from the encoder's architecture with fresh weights, to compare",
    )
    flags.add_shared_flags(parser)
    return parser


def main(argv: list[str] | None = None, on_epoch: OnEpoch | None = None) -> int:
    """Runs the program and returns its exit code; `on_epoch` as for `Session`."""
    return start.run(lambda args: train_classifiers(args, on_epoch), build_parser(), argv)


def train_classifiers(args: argparse.Namespace, on_epoch: OnEpoch | None = None) -> int:
    """Trains what the flags say, or what the answers say."""
    configs = read_configs(args, "classifier")
    if args.print_config:
        return describe_module.print_configs(configs)
    check_destinations(args)
    input_shape = _check_data(args)
    model = _get_given_model(args)
    if model:
        check_model_shape(model, input_shape)
    for path, (_, config) in zip(args.config, configs, strict=True):
        check_encoder(config, model, input_shape, path)
    return ClassifierSession(args, *_load_data(args), on_epoch).run(configs)


def _get_given_model(args: argparse.Namespace) -> str | None:
    """The saved model that the flags name, whole or for its encoder."""
    conflicting = args.model or ("--no-pretrained" if args.no_pretrained else None)
    if args.init_from and conflicting and not args.resume:
        raise UsageError(
            "--init-from",
            "gives the weights of all layers",
            f"{conflicting} as well",
            "Leave one of the two out.",
        )
    return args.init_from or args.model


def _check_data(args: argparse.Namespace) -> Shape:
    """Checks the training and test data from their headers; returns the images' shape."""
    if args.test_labels and not args.test and args.dataset not in NAMED_DATASETS:
        raise UsageError("-tl", "needs the test images", "no -t", "Add -t TEST, or leave both out.")
    _, input_shape = check_dataset(args.dataset, args.labels, labels_required=True)
    test = _test_source(args)
    if test:
        _, test_shape = check_dataset(test, args.test_labels, split="test", labels_required=True)
        if test_shape != input_shape:
            raise DataError(
                test,
                f"must hold images of the training images' shape {format_shape(input_shape)}",
                format_shape(test_shape),
                "Give test images of that height, width and number of channels.",
            )
    return input_shape


def _load_data(args: argparse.Namespace) -> tuple[Dataset, Dataset | None]:
    data = load_dataset(args.dataset, args.labels, limit=args.limit, labels_required=True)
    if len(np.unique(data.labels)) < 2:
        raise DataError(
            args.labels or args.dataset,
            "the training labels must name at least two classes",
            f"only {data.labels[0]} in {len(data.labels)} images",
            "Give more images (a larger --limit), or other labels.",
        )
    test = _test_source(args)
    if test is None:
        return data, None
    test_data = load_dataset(test, args.test_labels, split="test", labels_required=True)
    check_same_kind(get_scaling(data.images), test_data.images, test)
    _warn_of_shared_images(data, test_data)
    return data, test_data


def _warn_of_shared_images(data: Dataset, test: Dataset) -> None:
    hashes = {"training": hash_images(data.images), "test": hash_images(test.images)}
    (overlap,) = find_overlaps(hashes)
    if len(overlap.indices):
        terminal.warn(f"{overlap}: the test will look better than it is.")


def _test_source(args: argparse.Namespace) -> str | None:
    """The path or name of the test images; None when there are none."""
    return args.test or (args.dataset if args.dataset in NAMED_DATASETS else None)


def check_encoder(
    config: ClassifierConfig, model: str | None, input_shape: Shape, where: object
) -> None:
    """Checks that a configuration and the command line together give a fitting encoder.

    Raises:
        UsageError: Neither gives one.
        ModelFileError: It is no model, or takes images of another shape.
        ConfigurationError: Its layers do not fit the images.
    """
    if model:
        return  # checked once for all configurations
    if config.encoder_layers is None:
        raise UsageError(
            where,
            "an encoder is required",
            "neither encoder_layers nor -model",
            "Add -model MODEL, trained with autoencoder.py --save MODEL.",
        )
    if isinstance(config.encoder_layers, str):
        check_model_shape(config.encoder_layers, input_shape)
    else:
        check_shapes(config, input_shape, where)


class ClassifierSession(Session):
    """The classifiers of one start of the program.

    Args:
        args: The flags.
        data: Training images and labels.
        test: Test images and labels, if there are any.
        on_epoch: See `Session`.
    """

    program = "classification.py"
    progress = (("loss", "accuracy", "f1"), True)

    def __init__(
        self,
        args: argparse.Namespace,
        data: Dataset,
        test: Dataset | None,
        on_epoch: OnEpoch | None = None,
    ):
        super().__init__(args, data, on_epoch)
        self.test = test

    @property
    def choices(self) -> list[tuple[str, Callable[[], None] | None]]:
        """See `Session`."""
        return [
            ("Repeat with different hyperparameters", self.repeat),
            ("Show graphs", self.show_graphs),
            ("Classify the test images", self.classify),
            ("Exit", None),
            ("Save a model", self.ask_and_save),
        ]

    def ask_config(self) -> tuple[str, ClassifierConfig]:
        """See `Session`."""
        return ask_config(self.args, self.data.images.shape[1:])

    def datasets(self) -> dict[str, Dataset]:
        """See `Session`."""
        return {"training": self.data, **({"test": self.test} if self.test else {})}

    def model_files(self, config: ClassifierConfig) -> list[str]:
        """See `Session`."""
        path = self._encoder_file(config)
        return [path] if path else []

    def build(self, config: ClassifierConfig) -> "keras.Model":
        """See `Session`."""
        from cae.training.build import get_classifier

        is_listed = isinstance(config.encoder_layers, tuple | list)
        return get_classifier(
            config,
            self.data.images.shape[1:],
            len(self.classes),
            encoder=self.args.model or (None if is_listed else self.args.init_from),
            pretrained=not self.args.no_pretrained,
        )

    def fit(
        self, model: "keras.Model", config: ClassifierConfig, name: str, **hooks: Any
    ) -> History:
        """See `Session`."""
        from cae.training.train import train_classifier

        return train_classifier(
            model,
            config,
            self.data.images,
            self.data.labels,
            classes=self.classes,
            scaling=self._scaling(config),
            pretrained=self._is_pretrained(config),
            name=name,
            **hooks,
        )

    def describe(self, config: ClassifierConfig) -> dict[str, Any]:
        """See `Session`."""
        _, counts = np.unique(self.data.labels, return_counts=True)
        low, high = counts.min(), counts.max()
        images = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        test = f"{len(self.test.images):,} images" if self.test else "none"
        weights = "its weights" if self._is_pretrained(config) else "fresh weights"
        source = self._encoder_file(config) or "layers of the configuration"
        return {
            "test": test,
            "classes": f"{len(counts)}, with {images} images each",
            "encoder": f"{source}, {weights}",
        }

    def get_metadata(self, config: ClassifierConfig) -> dict[str, Any]:
        """See `Session`."""
        return {
            "scaling": asdict(self._scaling(config)),
            "classes": self.classes.tolist(),
            "class_names": self.class_names,
            "encoder": self._encoder_file(config),
            "pretrained": self._is_pretrained(config),
        }

    def get_score(self, experiment: Experiment) -> float:
        """See `Session`."""
        metrics = experiment.history.metrics
        return metrics.get("val_accuracy", metrics["accuracy"])

    def evaluate(self, experiment: Experiment) -> None:
        """Classifies the test images once, or the validation images where there are none."""
        scaling = Scaling(**experiment.metadata["scaling"])
        if self.test is None:
            experiment.evaluation = self._classify(
                experiment.model, self.data, scaling, experiment.split[1]
            )
        else:
            experiment.evaluation = self._classify(experiment.model, self.test, scaling)
            experiment.history.metrics |= _test_metrics(experiment.evaluation)
        if experiment.evaluation:
            _write_evaluation(experiment.run, experiment.evaluation)

    def draw(self, experiment: Experiment) -> dict[str, "Figure"]:
        """See `Session`."""
        from cae.figures import curves

        evaluation = experiment.evaluation
        figures = curves.classifier_loss_visualization([experiment.history], [None])
        if evaluation is None:
            return figures
        data = self.test or self.data
        chosen = experiment.split[1] if self.test is None else np.arange(len(data.images))
        scaling = Scaling(**experiment.metadata["scaling"])
        figures |= _draw_predictions(evaluation, data, scaling, chosen)
        figures["encodings"] = self.draw_encodings(
            experiment.model, data, scaling, chosen[:INSPECTED_IMAGES]
        )
        return figures

    def draw_all(self) -> dict[str, "Figure"]:
        """See `Session`."""
        from cae.figures.curves import classifier_loss_visualization

        return classifier_loss_visualization(
            [experiment.history for experiment in self.experiments],
            [e.evaluation and e.evaluation.report for e in self.experiments],
        )

    def next_command(self, saved: Path) -> str:
        """See `Session`."""
        command = ["python", "classification.py"]
        for flag, value in (
            ("-d", self.args.dataset),
            ("-dl", self.args.labels),
            ("-t", self.args.test),
            ("-tl", self.args.test_labels),
            ("-model", terminal.relative(saved)),
        ):
            command += [flag, value] if value else []
        return f"{shlex.join(command)} (its menu tests any saved classifier)"

    def classify(self) -> None:
        """Asks for a model of this session or a saved one, and shows how it does on the test."""
        from cae.figures import windows

        if self.test is None:
            raise UsageError(
                "-t",
                "test images are required",
                "none",
                "Start again with -t TEST -tl TEST_LABELS.",
            )
        experiment = self.choose_experiment("Which model", "a saved classifier")
        if experiment:
            evaluation, name = experiment.evaluation, experiment.name
            scaling = Scaling(**experiment.metadata["scaling"])
        else:
            path = prompts.ask(OUT, "File of the classifier", prompts.file_name(_classifier_file))
            evaluation, scaling = self._classify_with_file(path)
            name = path.stem
        with Run(self.args.runs_dir, f"test-{name}") as run:
            _write_evaluation(run, evaluation)
            write_json(run.path / "metrics.json", {"model": name, **_test_metrics(evaluation)})
            figures = _draw_predictions(
                evaluation, self.test, scaling, np.arange(len(self.test.images))
            )
            run.save_figures(figures)
        OUT.print(evaluation.report_text)
        terminal.say(f"Report, predictions and figures: {terminal.relative(run.path)}")
        windows.show_windows(figures.values())

    def _classify_with_file(self, path: Path) -> tuple[Evaluation, Scaling]:
        from cae.training.build import check_input_shape

        model, metadata = load_model(path)
        check_input_shape(model, self.test.images.shape[1:], path)
        if len(model.output_shape) != 2:
            raise ModelFileError(
                path,
                "must be a classifier",
                f"a model whose output has shape {format_shape(model.output_shape[1:])}",
                "Give one saved by classification.py.",
            )
        classes = self._classes_of(model.output_shape[1], metadata)
        scaling = choose_scaling(path, self.data)
        names = metadata.get("class_names")
        if names is not None and len(names) != len(classes):
            names = None
        return self._classify(model, self.test, scaling, classes=classes, names=names), scaling

    def _classes_of(self, num_outputs: int, metadata: dict[str, Any]) -> np.ndarray:
        """The labels a saved classifier was trained on; files of other programs do not say."""
        classes = metadata.get("classes")
        if classes is None or len(classes) != num_outputs:
            fits = num_outputs == len(self.classes)
            classes = self.classes if fits else np.arange(num_outputs)
        return np.asarray(classes, np.int64)

    def _classify(
        self,
        model: "keras.Model",
        data: Dataset,
        scaling: Scaling,
        indices: np.ndarray | None = None,
        classes: np.ndarray | None = None,
        names: list[str] | None = None,
    ) -> Evaluation | None:
        from cae.training.predict import predict

        if indices is not None and not len(indices):
            return None
        check_same_kind(scaling, data.images, data.name)
        labels = data.labels if indices is None else data.labels[indices]
        evaluation = evaluate(
            predict(model, data.images, scaling, indices),
            labels,
            self.classes if classes is None else classes,
            self.class_names if classes is None else names,
            indices,
        )
        if evaluation.num_unseen:
            terminal.warn(
                f"{evaluation.num_unseen} test images have a label that training never saw; "
                "each counts as an error."
            )
        return evaluation

    def _encoder_file(self, config: ClassifierConfig) -> str | None:
        """The saved model whose encoder is used; None where the configuration lists layers."""
        layers = config.encoder_layers
        given = self.args.init_from or self.args.model
        return given or (layers if isinstance(layers, str) else None)

    def _is_pretrained(self, config: ClassifierConfig) -> bool:
        return self._encoder_file(config) is not None and not self.args.no_pretrained

    def _scaling(self, config: ClassifierConfig) -> Scaling:
        return choose_scaling(self._encoder_file(config), self.data)


def _classifier_file(name: str) -> Path:
    read_metadata(name)
    return Path(name)


def _test_metrics(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "test_accuracy": evaluation.accuracy,
        "test_macro_f1": evaluation.macro_f1,
        "test_images": len(evaluation.labels),
        "test_labels_unseen": evaluation.num_unseen,
    }


def _write_evaluation(run: Run, evaluation: Evaluation) -> None:
    write_text(run.path / "classification_report.txt", evaluation.report_text)
    write_csv(run.path / "predictions.csv", evaluation.rows)


def _draw_predictions(
    evaluation: Evaluation, data: Dataset, scaling: Scaling, chosen: np.ndarray
) -> dict[str, "Figure"]:
    from cae.figures.classes import classifier_prediction_visualization

    return classifier_prediction_visualization(
        scaling.apply(data.images[chosen]),
        evaluation.targets,
        evaluation.probabilities,
        evaluation.class_names,
    )


def ask_config(args: argparse.Namespace, input_shape: Shape) -> tuple[str, ClassifierConfig]:
    """Asks for a configuration file, or for the hyperparameters one by one."""
    OUT.print("Hyperparameters of the classifier:")
    ways = ["Use an existing configuration file", "Give the layers one by one"]
    if prompts.choose(OUT, "Your choice", ways) == 1:

        def load(path: str) -> ClassifierConfig:
            config = load_config(path, "classifier")
            if config.encoder_layers is not None:
                check_encoder(config, args.model, input_shape, path)
            return config

        name, config = ask_for_file("classifier", "configuration/classifier_small_small.json", load)
        if config.encoder_layers is None and args.model is None:
            config = config.model_copy(update={"encoder_layers": _ask_encoder(input_shape)})
        return name, override_by_flags(config, args)
    config = override_by_flags(_ask_hyperparameters(args, input_shape), args)
    return offer_to_save(config) or "classifier", config


def _ask_hyperparameters(args: argparse.Namespace, input_shape: Shape) -> ClassifierConfig:
    values: dict[str, Any] = {}
    if args.model is None:
        values["encoder_layers"] = _ask_encoder(input_shape)
    OUT.print("Dense layers, from the encoding to the classes:")
    values["dense_layers"] = _ask_layers()
    dense_only = args.epochs or prompts.ask(
        OUT, "Epochs of the dense layers alone", prompts.whole_number(0, MAX_EPOCHS), 5
    )
    values["dense_only_train_epochs"] = dense_only
    values["full_train_epochs"] = args.epochs or prompts.ask(
        OUT, "Epochs of everything", prompts.whole_number(0 if dense_only else 1, MAX_EPOCHS), 10
    )
    values["batch_size"] = args.batch_size or prompts.ask(
        OUT, "Batch size", prompts.whole_number(1, MAX_BATCH_SIZE), 64
    )
    values["optimizer"] = ask_optimizer()
    return validate_config(values, "answers", "classifier")


def _ask_encoder(input_shape: Shape) -> str:
    def encoder_file(name: str) -> str:
        check_model_shape(name, input_shape)
        return name

    return prompts.ask(OUT, "Saved autoencoder", prompts.file_name(encoder_file))


def _ask_layers() -> list[list]:
    layers: list[list] = []
    kinds = ["dense", "drop", "batchNorm", "done"]
    while True:
        kind = prompts.ask(
            OUT, f"  Layer {len(layers) + 1} ({', '.join(kinds)})", prompts.one_of(kinds), "done"
        )
        match kind:
            case "done":
                return layers
            case "dense":
                layers.append(
                    ["dense", prompts.ask(OUT, "    Units", prompts.whole_number(1, MAX_UNITS), 64)]
                )
            case "drop":
                layers.append(["drop", prompts.ask(OUT, "    Rate", prompts.number(0, 0.99), 0.25)])
            case "batchNorm":
                layers.append(["batchNorm"])


if __name__ == "__main__":
    raise SystemExit(main())

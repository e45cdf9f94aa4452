"""The two tasks: an autoencoder learns to draw its input, a classifier learns labels."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from cae import terminal
from cae.config.architecture import describe_architecture
from cae.config.schema import AutoencoderConfig, ClassifierConfig
from cae.config.shapes import Shape, format_shape, get_rounding
from cae.config.shipped import SHIPPED, find_shipped
from cae.data.splits import get_classes, is_imbalanced, spread_out
from cae.errors import UsageError, counted
from cae.programs import start
from cae.programs.evaluate import (
    CALIBRATION_IMAGES,
    calibrate,
    draw_evaluation,
    evaluate_model,
    get_test_metrics,
    write_evaluation,
)
from cae.programs.flags import to_words
from cae.programs.images import (
    check_images,
    check_labelled_images,
    get_changes,
    load_images,
    load_labelled_images,
    repeat_reading,
)
from cae.programs.starting_points import check_model_shape, uses_unlabelled
from cae.programs.task import INSPECTED_IMAGES, Experiment, Task
from cae.records.calibration import Typical
from cae.records.history import History

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

EXAMPLES = 6  # originals shown beside their reconstructions


class AutoencoderTask(Task):
    """Autoencoders learn to draw their own input."""

    kind = "autoencoder"
    shown_metrics = ("loss", "mse")

    @override
    @classmethod
    def check(cls, args: argparse.Namespace) -> tuple[Shape, str | None]:
        input_shape = check_images(args)
        if args.init_from:
            check_model_shape(args.init_from, input_shape)
        return input_shape, None

    @override
    @classmethod
    def load(cls, args: argparse.Namespace, seed: int) -> "AutoencoderTask":
        return cls(args, load_images(args, seed))

    @override
    def build(self, config: AutoencoderConfig) -> "keras.Model":
        from cae.training.build import get_autoencoder

        return get_autoencoder(config, self.input_shape)

    @override
    def fit(self, model: "keras.Model", config: AutoencoderConfig, **arguments: Any) -> History:
        from cae.training import train

        return train.train_autoencoder(model, config, self.data.images, **arguments)

    @override
    def describe(self, config: AutoencoderConfig) -> dict[str, Any]:
        facts = {"architecture": describe_architecture(config.model_dump(mode="json"))}
        if self.data.held_out:
            facts["test"] = f"{self.data.held_out:,} other images, for a later test"
        rounding = get_rounding(config, self.input_shape)
        if rounding.pools:
            drawn, kept = format_shape(rounding.size), format_shape(self.input_shape[:2])
            facts["size"] = f"sizes round up; the decoder outputs {drawn}, cropped to {kept}"
        return facts

    @override
    def evaluate(self, experiment: Experiment) -> None:
        """Measures the usual reconstruction error, so that anomalies can be told."""
        from cae.training.build import with_error
        from cae.training.predict import predict

        model, images = with_error(experiment.model), self.data.images
        with terminal.announcing("Measuring reconstruction errors"):
            training, validation = (
                predict(model, images, experiment.scaling, spread_out(indices, CALIBRATION_IMAGES))
                for indices in experiment.split
            )
        experiment.metadata["typical"] = asdict(Typical.fit(training, validation, of_errors=True))

    @override
    def draw(self, experiment: Experiment) -> dict[str, "Figure"]:
        from cae.figures import images as figures_module
        from cae.training.layers import first_filters

        chosen = _inspected(experiment)
        images = experiment.scaling.apply(self.data.images[chosen])
        drawn = self._reconstruct(experiment, chosen)
        figures = figures_module.autoencoder_visualization(
            [experiment.history], spread_out(images, EXAMPLES), [spread_out(drawn, EXAMPLES)]
        )
        figures["worst_reconstructions"] = figures_module.plot_worst_reconstructions(
            images, drawn, image_names=self.data.name_images(chosen)
        )
        figures["encodings"] = self.draw_encodings(experiment, self.data, chosen)
        filters = first_filters(experiment.model)
        if filters is not None:
            figures["filters"] = figures_module.plot_filters(filters)
        return figures | self.draw_views(experiment.config, experiment.scaling)

    @override
    def draw_all(self, experiments: Sequence[Experiment]) -> Iterator["Figure"]:
        from cae.figures.images import autoencoder_visualization

        chosen = spread_out(_inspected(experiments[0]), EXAMPLES)
        yield from autoencoder_visualization(
            [experiment.history for experiment in experiments],
            experiments[0].scaling.apply(self.data.images[chosen]),
            [self._reconstruct(experiment, chosen) for experiment in experiments],
        ).values()

    @override
    def next_command(self, saved: Path) -> list[str]:
        data = ["-d", self.args.dataset]
        if self.args.labels:
            data += ["-dl", self.args.labels]
        elif self.data.labels is None or len(get_classes(self.data.labels)) < 2:
            return [*start.find_command("predict.py"), "show", terminal.relative(saved)]
        config = terminal.relative(find_shipped(SHIPPED["classifier"][0]))
        model = ["-model", terminal.relative(saved), "-c", config]
        reading = repeat_reading(self.args, self.args.dataset)
        changes = to_words({"invert": self.args.invert, "transpose": self.args.transpose})
        return [*start.find_command("classification.py"), *data, *reading, *changes, *model]

    def _reconstruct(self, experiment: Experiment, chosen: np.ndarray) -> np.ndarray:
        from cae.training.predict import predict

        return predict(experiment.model, self.data.images, experiment.scaling, chosen)


class ClassifierTask(Task):
    """Classifiers learn labels, from the encoding of a pretrained encoder or from scratch."""

    kind = "classifier"
    shown_metrics = ("loss", "accuracy", "f1")

    @override
    @classmethod
    def check(cls, args: argparse.Namespace) -> tuple[Shape, str | None]:
        model = _get_given_model(args)
        input_shape = check_labelled_images(args)
        if model:
            check_model_shape(model, input_shape)
        return input_shape, model

    @override
    @classmethod
    def load(cls, args: argparse.Namespace, seed: int) -> "ClassifierTask":
        return cls(args, *load_labelled_images(args, seed))

    @override
    def get_model_file(self, config: ClassifierConfig) -> str | None:
        """The saved model whose encoder is used; None where the configuration lists layers."""
        layers = config.encoder_layers
        given = self.args.init_from or self.args.model
        return given or (layers if isinstance(layers, str) else None)

    @override
    def check_config(self, config: ClassifierConfig) -> None:
        config.check_unlabelled(len(self.unlabelled.images) if self.unlabelled else 0)
        if uses_unlabelled(config) and self.args.devices:
            raise UsageError(
                "--devices",
                "must be left out with the key unlabelled of the configuration",
                self.args.devices,
                "Train on one device.",
            )

    @override
    def build(self, config: ClassifierConfig) -> "keras.Model":
        from cae.training.build import get_classifier

        is_listed = isinstance(config.encoder_layers, tuple)
        return get_classifier(
            config,
            self.input_shape,
            len(self.classes),
            encoder=self.args.model or (None if is_listed else self.args.init_from),
            pretrained=not self.args.no_pretrained,
            encoder_until=self.args.encoder_until,
            model_input_range=self.args.model_input_range,
            say=terminal.say,
        )

    @override
    def fit(self, model: "keras.Model", config: ClassifierConfig, **arguments: Any) -> History:
        from cae.training import train

        return train.train_classifier(
            model,
            config,
            self.data.images,
            self.data.labels,
            classes=self.classes,
            unlabelled=self.unlabelled.images if self.unlabelled else None,
            pretrained=self._is_pretrained(config),
            **arguments,
        )

    @override
    def describe(self, config: ClassifierConfig) -> dict[str, Any]:
        _, counts = np.unique(self.data.labels, return_counts=True)
        low, high = int(counts.min()), int(counts.max())
        images = counted(high, "image") if low == high else f"{low:,} to {counted(high, 'image')}"
        weights = "its weights" if self._is_pretrained(config) else "fresh weights"
        source = self.get_model_file(config) or "layers of the configuration"
        facts = {}
        if is_imbalanced(self.data.labels):
            names = self.class_names[counts.argmax()], self.class_names[counts.argmin()]
            has_validation = config.validation_split > 0 or self.data.validation is not None
            monitor = config.get_monitor(has_validation, is_imbalanced=True)
            epoch = f"best epoch by {monitor[0]}" if monitor else "the last epoch is kept"
            facts["imbalance"] = (
                f"{names[0]} has {high / low:.1f} times as many images as {names[1]}; class_weight "
                f"{config.class_weight or 'none'}, {epoch}"
            )
        if self.unlabelled:
            facts["unlabelled"] = f"{len(self.unlabelled.images):,} other images without labels"
            if not uses_unlabelled(config):
                facts["unlabelled"] += ", not used: the configuration has no key unlabelled"
        return facts | {
            "test": f"{len(self.test.images):,} images" if self.test else "none",
            "classes": f"{len(counts)}, with {images} each",
            "encoder": f"{source}, {weights}",
        }

    @override
    def get_metadata(self, config: ClassifierConfig) -> dict[str, Any]:
        return {
            "classes": self.classes.tolist(),
            "class_names": self.class_names,
            "encoder": self.get_model_file(config),
            "pretrained": self._is_pretrained(config),
        }

    @override
    def evaluate(self, experiment: Experiment) -> None:
        """Calibrates, and classifies the test images once, or the validation images without any."""
        from cae.training.build import with_summary

        _, validation = experiment.split
        model, scaling = with_summary(experiment.model), experiment.scaling
        with terminal.announcing("Calibrating the probabilities"):
            calibration, found = calibrate(
                model, self.data, scaling, experiment.split, self.classes, self.unlabelled
            )
        experiment.metadata |= found
        if self.test is None and not len(validation):
            return
        evaluation = evaluate_model(
            model,
            self.test or self.data,
            scaling,
            self.classes,
            self.class_names,
            None if self.test else validation,
            calibration,
        )
        experiment.evaluation = evaluation
        experiment.history.metrics["temperature"] = calibration.temperature
        if self.test:
            experiment.history.metrics |= get_test_metrics(evaluation)
        else:
            experiment.history.metrics["val_ece"] = evaluation.calibration_error
        write_evaluation(experiment.run, evaluation, self.test or self.data)

    @override
    def draw(self, experiment: Experiment) -> dict[str, "Figure"]:
        from cae.figures.classes import classifier_loss_visualization

        evaluation, data = experiment.evaluation, self.test or self.data
        figures = classifier_loss_visualization([experiment.history], [None])
        if evaluation:
            figures |= draw_evaluation(evaluation, data, experiment.scaling)
            chosen = spread_out(evaluation.indices, INSPECTED_IMAGES)
            figures["encodings"] = self.draw_encodings(experiment, data, chosen)
        return figures | self.draw_views(experiment.config, experiment.scaling)

    @override
    def draw_all(self, experiments: Sequence[Experiment]) -> Iterator["Figure"]:
        from cae.figures.classes import classifier_loss_visualization

        yield from classifier_loss_visualization(
            [experiment.history for experiment in experiments],
            [experiment.evaluation and experiment.evaluation.report for experiment in experiments],
        ).values()

    @override
    def next_command(self, saved: Path) -> list[str]:
        program, model = start.find_command("predict.py"), terminal.relative(saved)
        if self.test is None:
            return [*program, "show", model]
        test = {
            "-d": None if self.args.test else self.args.dataset,
            "-t": self.args.test,
            "-tl": self.args.test_labels,
        }
        given = [word for flag, value in test.items() if value for word in (flag, value)]
        # The model knows the names of its classes.
        unnamed = argparse.Namespace(**{**vars(self.args), "class_names": None})
        reading = repeat_reading(unnamed, test["-d"], test["-t"])
        changes = [*reading, *get_changes(self.args, "test")]
        return [*program, "evaluate", model, *given, *changes]

    def _is_pretrained(self, config: ClassifierConfig) -> bool:
        return self.get_model_file(config) is not None and not self.args.no_pretrained


def _inspected(experiment: Experiment) -> np.ndarray:
    """The images that figures show: validation images, or training images without any."""
    training, validation = experiment.split
    return spread_out(validation if len(validation) else training, INSPECTED_IMAGES)


def _get_given_model(args: argparse.Namespace) -> str | None:
    """The saved model that the flags name, whole or for its encoder."""
    conflicting = args.model or ("--no-pretrained" if args.no_pretrained else None)
    if args.init_from and conflicting and not args.resume:
        raise UsageError(
            "--init-from",
            "must be the only source of weights",
            f"{conflicting} as well",
            "Remove one of the two.",
        )
    return args.init_from or args.model

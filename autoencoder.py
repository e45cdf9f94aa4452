"""Trains convolutional autoencoders: asks for the hyperparameters, or takes them from JSON files.

python autoencoder.py -d mnist
python autoencoder.py -d mnist -c configuration/autoencoder_small.json --save models/small.keras
"""

import argparse
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from cae import terminal
from cae.config.architecture import describe_architecture
from cae.config.schema import AutoencoderConfig
from cae.config.shapes import format_shape, get_rounding
from cae.data.datasets import check_dataset, load_dataset
from cae.data.named import NAMED_DATASETS
from cae.programs import flags, menu, start
from cae.programs.describe import print_configs
from cae.programs.session import Session
from cae.programs.starting_points import (
    check_destinations,
    check_layers,
    check_model_shape,
    read_configs,
)
from cae.programs.task import INSPECTED_IMAGES, Experiment, Task
from cae.records.history import History, OnEpoch

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

EXAMPLES = 10  # originals shown beside their reconstructions


def build_parser() -> flags.Parser:
    """The command line of this program."""
    parser = flags.Parser(prog="autoencoder.py", description=__doc__)
    parser.add_argument(
        "-d",
        "--dataset",
        metavar="DATASET",
        help=f"an idx file of images (raw or gzip), or {', '.join(NAMED_DATASETS)}",
    )
    parser.add_argument(
        "-dl",
        "--labels",
        metavar="FILE",
        help="labels of the images; they only colour the figure of the encodings",
    )
    flags.add_shared_flags(parser)
    return parser


def main(argv: list[str] | None = None, on_epoch: OnEpoch | None = None) -> int:
    """Runs the program and returns its exit code."""
    return start.run(lambda args: run(args, on_epoch), build_parser(), argv)


def run(args: argparse.Namespace, on_epoch: OnEpoch | None = None) -> int:
    """Trains what the flags say, or what the answers say."""
    configs = read_configs(args, "autoencoder")
    if args.print_config:
        return print_configs(configs)
    check_destinations(args)
    _, input_shape = check_dataset(args.dataset, args.labels)
    if args.init_from:
        check_model_shape(args.init_from, input_shape)
    for path, (_, config) in zip(args.config, configs, strict=True):
        check_layers(config, None, input_shape, path)
    data = load_dataset(args.dataset, args.labels, limit=args.limit)
    session = Session(AutoencoderTask(args, data), on_epoch)
    return session.run(configs) if configs else menu.run(session)


class AutoencoderTask(Task):
    """Autoencoders learn to draw their own input."""

    kind = "autoencoder"
    shown_metrics = ("loss", "mse")

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
        rounding = get_rounding(config, self.input_shape)
        if rounding.pools:
            drawn, kept = format_shape(rounding.size), format_shape(self.input_shape[:2])
            facts["size"] = f"pools round up; the decoder draws {drawn} and crops it to {kept}"
        return facts

    @override
    def draw(self, experiment: Experiment) -> dict[str, "Figure"]:
        from cae.figures import images as figures_module
        from cae.training.predict import first_filters

        chosen = _inspected(experiment)
        images = experiment.scaling.apply(self.data.images[chosen])
        drawn = self._reconstruct(experiment, chosen)
        figures = figures_module.autoencoder_visualization(
            [experiment.history], images[:EXAMPLES], [drawn[:EXAMPLES]]
        )
        figures["worst_reconstructions"] = figures_module.plot_worst_reconstructions(
            images, drawn, indices=chosen
        )
        figures["encodings"] = self.draw_encodings(experiment, self.data, chosen)
        filters = first_filters(experiment.model)
        if filters is not None:
            figures["filters"] = figures_module.plot_filters(filters)
        return figures

    @override
    def draw_all(self, experiments: Sequence[Experiment]) -> Iterator["Figure"]:
        from cae.figures.images import autoencoder_visualization

        chosen = _inspected(experiments[0])[:EXAMPLES]
        yield from autoencoder_visualization(
            [experiment.history for experiment in experiments],
            experiments[0].scaling.apply(self.data.images[chosen]),
            [self._reconstruct(experiment, chosen) for experiment in experiments],
        ).values()

    @override
    def next_command(self, saved: Path) -> str:
        command = [*start.name_command("classification.py"), "-d", self.args.dataset]
        if self.args.labels:
            command += ["-dl", self.args.labels]
        elif self.args.dataset not in NAMED_DATASETS:
            command += ["-dl", "LABELS", "-t", "TEST", "-tl", "TEST_LABELS"]
        command += ["-model", terminal.relative(saved)]
        return shlex.join([*command, "-c", "configuration/classifier_small_small.json"])

    def _reconstruct(self, experiment: Experiment, chosen: np.ndarray) -> np.ndarray:
        from cae.training.predict import predict

        return predict(experiment.model, self.data.images, experiment.scaling, chosen)


def _inspected(experiment: Experiment) -> np.ndarray:
    """The images that figures show: validation images, or training images without any."""
    training, validation = experiment.split
    return (validation if len(validation) else training)[:INSPECTED_IMAGES]


if __name__ == "__main__":
    raise SystemExit(main())

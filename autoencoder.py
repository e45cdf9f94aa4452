"""Trains convolutional autoencoders: asks for the hyperparameters, or takes them from JSON files.

python autoencoder.py -d mnist
python autoencoder.py -d mnist -c configuration/autoencoder_small.json --save models/small.keras
"""

import argparse
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cae import prompts, terminal
from cae.config.fields import (
    ACTIVATIONS,
    MAX_BATCH_SIZE,
    MAX_EPOCHS,
    MAX_FILTERS,
    MAX_KERNEL,
    MAX_POOL,
)
from cae.config.load import load_config, validate_config
from cae.config.schema import AutoencoderConfig
from cae.config.shapes import check_shapes
from cae.data.datasets import Dataset, check_dataset, load_dataset
from cae.data.named import NAMED_DATASETS
from cae.errors import ConfigurationError
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
from cae.records.history import History
from cae.terminal import OUT
from cae.training.threads import choose_cores

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

# Originals shown beside their reconstructions.
EXAMPLES = 10


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
    """Runs the program and returns its exit code; `on_epoch` as for `Session`."""
    is_program = argv is None  # and nothing else is going to run in this process
    return start.run(
        lambda args: train_autoencoders(args, on_epoch, is_program), build_parser(), argv
    )


def train_autoencoders(
    args: argparse.Namespace, on_epoch: OnEpoch | None = None, is_program: bool = False
) -> int:
    """Trains what the flags say, or what the answers say."""
    configs = read_configs(args, "autoencoder")
    if args.print_config:
        return describe_module.print_configs(configs)
    check_destinations(args)
    _, input_shape = check_dataset(args.dataset, args.labels)
    if args.init_from:
        check_model_shape(args.init_from, input_shape)
    for path, (_, config) in zip(args.config, configs, strict=True):
        check_shapes(config, input_shape, path)
    data = load_dataset(args.dataset, args.labels, limit=args.limit)
    session = AutoencoderSession(args, data, on_epoch)
    if is_program and not args.devices:  # workers divide the batch already
        session.cores = choose_cores([config for _, config in configs])
    return session.run(configs)


class AutoencoderSession(Session):
    """The autoencoders of one start of the program."""

    program = "autoencoder.py"
    progress = (("loss", "mse"), False)

    def __init__(self, args: argparse.Namespace, data: Dataset, on_epoch: OnEpoch | None = None):
        super().__init__(args, data, on_epoch)
        self._scaling = choose_scaling(args.init_from, data)

    @property
    def choices(self) -> list[tuple[str, Callable[[], None] | None]]:
        """See `Session`."""
        return [
            ("Repeat with different hyperparameters", self.repeat),
            ("Show graphs", self.show_graphs),
            ("Save a model", self.ask_and_save),
            ("Exit", None),
        ]

    def ask_config(self) -> tuple[str, AutoencoderConfig]:
        """See `Session`."""
        return ask_config(self.args, self.data.images.shape[1:])

    def build(self, config: AutoencoderConfig) -> "keras.Model":
        """See `Session`."""
        from cae.training.build import get_autoencoder

        return get_autoencoder(config, self.data.images.shape[1:])

    def fit(
        self, model: "keras.Model", config: AutoencoderConfig, name: str, **hooks: Any
    ) -> History:
        """See `Session`."""
        from cae.training.train import train_autoencoder

        return train_autoencoder(
            model,
            config,
            self.data.images,
            scaling=self._scaling,
            name=name,
            cores=self.cores,
            warn=terminal.warn,
            **hooks,
        )

    def describe(self, config: AutoencoderConfig) -> dict[str, Any]:
        """See `Session`."""
        from cae.figures.style import describe_architecture

        return {"architecture": describe_architecture(config.model_dump(mode="json"))}

    def get_metadata(self, config: AutoencoderConfig) -> dict[str, Any]:
        """See `Session`."""
        return {"scaling": asdict(self._scaling)}

    def get_score(self, experiment: Experiment) -> float:
        """See `Session`: losses of different kinds cannot be compared, squared errors can."""
        metrics = experiment.history.metrics
        return -metrics.get("val_mse", metrics["mse"])

    def draw(self, experiment: Experiment) -> dict[str, "Figure"]:
        """See `Session`."""
        from cae.figures import images as images_module
        from cae.training.predict import first_filters

        chosen = _inspected(experiment)
        images = self._scaling.apply(self.data.images[chosen])
        drawn = self._reconstruct(experiment, chosen)
        figures = images_module.autoencoder_visualization(
            [experiment.history], images[:EXAMPLES], [drawn[:EXAMPLES]]
        )
        figures["worst_reconstructions"] = images_module.plot_worst_reconstructions(
            images, drawn, indices=chosen
        )
        figures["encodings"] = self.draw_encodings(
            experiment.model, self.data, self._scaling, chosen
        )
        filters = first_filters(experiment.model)
        if filters is not None:
            figures["filters"] = images_module.plot_filters(filters)
        return figures

    def draw_all(self) -> dict[str, "Figure"]:
        """See `Session`."""
        from cae.figures.images import autoencoder_visualization

        chosen = _inspected(self.experiments[0])[:EXAMPLES]
        return autoencoder_visualization(
            [experiment.history for experiment in self.experiments],
            self._scaling.apply(self.data.images[chosen]),
            [self._reconstruct(experiment, chosen) for experiment in self.experiments],
        )

    def next_command(self, saved: Path) -> str:
        """See `Session`."""
        command = ["python", "classification.py", "-d", self.args.dataset]
        if self.args.labels:
            command += ["-dl", self.args.labels]
        elif self.args.dataset not in NAMED_DATASETS:
            command += ["-dl", "LABELS", "-t", "TEST", "-tl", "TEST_LABELS"]
        command += ["-model", terminal.relative(saved)]
        return shlex.join([*command, "-c", "configuration/classifier_small_small.json"])

    def _reconstruct(self, experiment: Experiment, chosen: np.ndarray) -> np.ndarray:
        from cae.training.predict import predict

        return predict(experiment.model, self.data.images, self._scaling, chosen)


def _inspected(experiment: Experiment) -> np.ndarray:
    """The images that figures look at: validation images, or training images without any."""
    training, validation = experiment.split
    return (validation if len(validation) else training)[:INSPECTED_IMAGES]


def ask_config(
    args: argparse.Namespace, input_shape: tuple[int, int, int]
) -> tuple[str, AutoencoderConfig]:
    """Asks for a configuration file, or for the hyperparameters one by one."""
    OUT.print("Hyperparameters of the autoencoder:")
    ways = ["Use an existing configuration file", "Give the layers one by one"]
    if prompts.choose(OUT, "Your choice", ways) == 1:

        def load(path: str) -> AutoencoderConfig:
            config = load_config(path, "autoencoder")
            check_shapes(config, input_shape, path)
            return config

        name, config = ask_for_file("autoencoder", "configuration/autoencoder_small.json", load)
        return name, override_by_flags(config, args)
    config = override_by_flags(_ask_hyperparameters(args, input_shape), args)
    return offer_to_save(config) or "autoencoder", config


def _ask_hyperparameters(
    args: argparse.Namespace, input_shape: tuple[int, int, int]
) -> AutoencoderConfig:
    while True:
        OUT.print("Encoder, from the image to the encoding:")
        encoder = _ask_layers(["conv", "pool", "batchNorm", "drop"], at_least=1)
        if prompts.confirm(OUT, "Mirror the encoder in the decoder", True):
            decoder = _mirror(encoder)
        else:
            OUT.print("Decoder, from the encoding back to the image:")
            decoder = _ask_layers(["conv", "upSample", "batchNorm", "drop"], at_least=0)
        values = {
            "encoder_layers": encoder,
            "decoder_layers": decoder,
            "optimizer": ["adam", 0.001],
            "batch_size": args.batch_size or 32,
            "epochs": args.epochs or 10,
        }
        try:
            config = validate_config(values, "answers", "autoencoder")
            check_shapes(config, input_shape, "answers")
            break
        except ConfigurationError as error:
            terminal.report(error)
            OUT.print("Give the layers again.")
    if args.epochs is None:
        values["epochs"] = prompts.ask(OUT, "Epochs", prompts.whole_number(1, MAX_EPOCHS), 10)
    if args.batch_size is None:
        values["batch_size"] = prompts.ask(
            OUT, "Batch size", prompts.whole_number(1, MAX_BATCH_SIZE), 32
        )
    values["activation_function"] = prompts.ask(
        OUT,
        f"Activation of the output ({', '.join(ACTIVATIONS)})",
        prompts.one_of(ACTIVATIONS),
        ACTIVATIONS[0],
    )
    values["optimizer"] = ask_optimizer()
    return validate_config(values, "answers", "autoencoder")


def _ask_layers(kinds: list[str], at_least: int) -> list[list]:
    layers: list[list] = []
    while True:
        offered = [*kinds, "done"] if len(layers) >= at_least else kinds
        kind = prompts.ask(
            OUT,
            f"  Layer {len(layers) + 1} ({', '.join(offered)})",
            prompts.one_of(offered),
            "done" if "done" in offered else kinds[0],
        )
        if kind == "done":
            return layers
        layers.append([kind, *_ask_parameters(kind)])


def _ask_parameters(kind: str) -> list:
    match kind:
        case "conv":
            filters = prompts.ask(OUT, "    Filters", prompts.whole_number(1, MAX_FILTERS), 32)
            size = prompts.ask(OUT, "    Kernel height,width", prompts.pair(1, MAX_KERNEL), "3,3")
            return [filters, list(size)]
        case "pool" | "upSample":
            return [list(prompts.ask(OUT, "    Height,width", prompts.pair(1, MAX_POOL), "2,2"))]
        case "drop":
            return [prompts.ask(OUT, "    Rate", prompts.number(0, 0.99), 0.2)]
    return []


def _mirror(encoder: list[list]) -> list[list]:
    """The encoder's convolutions and pools backwards, pools turned into upsampling."""
    turned = {"conv": "conv", "pool": "upSample"}
    return [[turned[kind], *rest] for kind, *rest in reversed(encoder) if kind in turned]


if __name__ == "__main__":
    raise SystemExit(main())

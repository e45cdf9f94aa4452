"""What a start of a program trains: files of hyperparameters, a saved model, or an interrupted run.

All of it is found and checked before Keras loads.
"""

import argparse
from pathlib import Path

from cae import terminal
from cae.config.load import load_config, override, validate_config
from cae.config.schema import Config, Kind
from cae.config.shapes import format_shape
from cae.data.datasets import Dataset, Scaling, check_same_kind, get_scaling
from cae.data.named import NAMED_DATASETS
from cae.errors import ModelFileError, UsageError
from cae.records import tracking
from cae.records.run import START_FILE, check_run_dir, check_runs_dir, find_interrupted, read_start
from cae.records.saved_models import check_destination, read_metadata
from cae.training.workers import get_index

PROGRAMS = {"autoencoder": "autoencoder.py", "classifier": "classification.py"}
# What may be asked for anew when a run is resumed; everything else the run knows itself.
RESUME_FLAGS = {"--resume", "--overwrite", "--no-plots", "--show", "--devices"}
PATH_ARGUMENTS = ("dataset", "labels", "test", "test_labels", "model", "init_from", "save")


def read_configs(args: argparse.Namespace, kind: Kind) -> list[tuple[str, Config]]:
    """The configurations to train, with their names; none when they are to be asked for.

    For a run to resume, or a model to begin with, the flags are completed: `config` names where
    each configuration comes from. Of several workers all but the first keep silent from here on.

    Raises:
        UsageError: The flags do not go together, or there is no such run.
        DataError: The run does not say how to go on.
        ModelFileError: The model cannot be begun with.
        ConfigurationError: A configuration is wrong.
    """
    if get_index(args.devices):
        terminal.keep_silent()
    if args.resume:
        return [_take_over_run(args, kind)]
    if args.dataset is None:
        raise UsageError(
            "-d/--dataset", "is required", None, f"See {PROGRAMS[kind]} --help, or --resume RUN."
        )
    if args.init_from and not args.config:
        return [_take_over_model(args, kind)]
    return [(Path(path).stem, load_overridden(path, kind, args)) for path in args.config]


def load_overridden(path: str, kind: Kind, args: argparse.Namespace) -> Config:
    """A configuration file with the flags' values in place of its own."""
    return override_by_flags(load_config(path, kind), args)


def override_by_flags(config: Config, args: argparse.Namespace) -> Config:
    """The configuration with the values of flags in place of its own."""
    return override(
        config,
        epochs=args.epochs,
        batch_size=args.batch_size,
        seed=args.seed,
        mixed_precision=args.mixed_precision,
    )


def check_destinations(args: argparse.Namespace) -> None:
    """Checks that the run, and the model where asked, can be written, before hours are spent.

    Only the first of several workers writes.

    Raises:
        UsageError: One cannot.
    """
    tracking.check_flags(args)
    if get_index(args.devices):
        return
    if args.save:
        check_destination(args.save, args.overwrite)
    if args.run_dir is None:
        if not args.resume:
            check_runs_dir(args.runs_dir)
    elif len(args.config) == 1:
        check_run_dir(args.run_dir)
    else:
        raise UsageError(
            "--run-dir",
            "needs exactly one configuration",
            len(args.config),
            "Give one -c FILE, or --runs-dir.",
        )


def check_model_shape(path: str, input_shape: tuple[int, int, int]) -> None:
    """Checks what can be said of a saved model without loading Keras.

    Raises:
        ModelFileError: It is no model, or takes images of another shape.
    """
    expected = read_metadata(path).get("input_shape")
    if expected and tuple(expected) != input_shape:
        raise ModelFileError(
            path,
            f"takes images of shape {format_shape(tuple(expected))}",
            f"images of shape {format_shape(input_shape)}",
            "Train an autoencoder on images of this shape first.",
        )


def choose_scaling(model_file: str | None, data: Dataset) -> Scaling:
    """That of a saved model, which knows no other; else that of the training images.

    Raises:
        DataError: The images are floats where those of the model were not, or reverse.
    """
    metadata = read_metadata(model_file) if model_file else {}
    if "scaling" not in metadata:
        return get_scaling(data.images)
    scaling = Scaling(**metadata["scaling"])
    check_same_kind(scaling, data.images, data.name)
    return scaling


def _take_over_model(args: argparse.Namespace, kind: Kind) -> tuple[str, Config]:
    """The configuration that a saved model was trained with."""
    path = args.init_from
    metadata = read_metadata(path)
    if "model_info" not in metadata:
        raise ModelFileError(
            path, "must say how it was trained", "a file of another program", "Add -c FILE."
        )
    if metadata.get("kind") != kind:
        raise ModelFileError(
            path,
            f"must be a saved {kind}",
            metadata.get("kind"),
            f"Use {', '.join(set(PROGRAMS.values()) - {PROGRAMS[kind]})}.",
        )
    args.config = [path]
    config = validate_config(metadata["model_info"], f"model_info in {path}", kind)
    return Path(path).stem, override_by_flags(config, args)


def _take_over_run(args: argparse.Namespace, kind: Kind) -> tuple[str, Config]:
    """Fills in the flags that an interrupted run began with; returns its name and configuration."""
    others = [flag for flag in args.given if flag not in RESUME_FLAGS]
    if others:
        raise UsageError(
            "--resume",
            "needs no other flags, for the run knows its own",
            ", ".join(others),
            "Leave them out, or start a new run.",
        )
    path = find_interrupted(args.resume)
    start = read_start(path)
    if start.program != PROGRAMS[kind]:
        raise UsageError(
            "--resume",
            f"must be a run of {PROGRAMS[kind]}",
            f"one of {start.program}",
            f"Type: python {start.program} --resume {args.resume}",
        )
    config = validate_config(start.config, f"config in {path / START_FILE}", kind)
    for name, value in start.arguments.model_dump(include=set(vars(args))).items():
        if name in PATH_ARGUMENTS:
            value = _seen_from_here(value, start.folder)
        setattr(args, name, getattr(args, name) or value)
    if kind == "classifier" and args.model is None and isinstance(config.encoder_layers, str):
        args.model = _seen_from_here(config.encoder_layers, start.folder)
    args.config = [str(path / START_FILE)]
    return start.name, config


def _seen_from_here(path: str | None, folder: str) -> str | None:
    """A path given in `folder`, which may be another one than that of this start."""
    if path is None or path in NAMED_DATASETS or Path(folder) == Path.cwd():
        return path
    return str(Path(folder) / path)

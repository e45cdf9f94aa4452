"""Where training starts: from configuration files, a saved model, or an interrupted run.

All of it is found and checked before Keras loads, and a wrong configuration before NumPy does.
"""

import argparse
import shlex
from pathlib import Path

from cae import terminal
from cae.config.choices import DATASETS, PROGRAMS
from cae.config.load import load_config, override, set_values, validate_config
from cae.config.schema import Config, Kind
from cae.config.shapes import Shape, check_shapes, format_shape, swap_sides
from cae.config.tf_config import get_index
from cae.errors import ModelFileError, UsageError, shown
from cae.programs.start import find_command
from cae.records.run import (
    PATHS,
    START_FILE,
    Arguments,
    Start,
    check_run_dir,
    check_runs_dir,
    find_interrupted,
    read_start,
)
from cae.records.saved_models import check_destination, read_metadata

# What may be given again when a run is resumed; everything else is recorded in the run.
RESUME_FLAGS = {"--resume", "--overwrite", "--no-plots", "--show", "--devices"}


def read_configs(args: argparse.Namespace, kind: Kind) -> list[tuple[str, Config]]:
    """The configurations to train, with their names; none when they are to be asked for.

    With --resume, or --init-from alone, the flags are completed: `config` names where each
    configuration comes from. Of several workers, all but the first are silent from here on.

    Raises:
        UserError: The flags contradict each other, or the run, model or configuration is unusable.
    """
    if _is_follower(args):
        terminal.keep_silent()
    if args.resume:
        return [_take_over_run(args, kind)]
    if args.dataset is None:
        raise UsageError(
            "-d/--dataset",
            "is required",
            None,
            "Add -d mnist or -d FOLDER (--help lists other forms), or --resume RUN.",
        )
    if args.init_from and not args.config:
        return [_take_over_model(args, kind)]
    if args.devices is not None and not args.config:
        raise UsageError("--devices", "requires a configuration", "none", "Pass one with -c FILE.")
    names = terminal.drop_common_start([Path(path).stem for path in args.config])
    configs = [load_overridden(path, kind, args) for path in args.config]
    encoders = {config.encoder_layers for config in configs}
    if len(encoders) == 1 and isinstance(next(iter(encoders)), str) and not args.init_from:
        args.model = args.model or encoders.pop()  # which pictures fit, now and with --resume
    return list(zip(names, configs, strict=True))


def _is_follower(args: argparse.Namespace) -> bool:
    """Whether this process is one of several workers, and not the first, which alone writes."""
    return args.devices is not None and get_index(args.devices) > 0


def load_overridden(path: str, kind: Kind, args: argparse.Namespace) -> Config:
    """A configuration file with the flags' values in place of its own."""
    return override_by_flags(load_config(path, kind), args)


def override_by_flags(config: Config, args: argparse.Namespace) -> Config:
    """The configuration with the values of flags in place of its own."""
    keys = ("epochs", "batch_size", "learning_rate", "seed", "mixed_precision", "class_weight")
    given = {key: getattr(args, key, None) for key in keys}
    for assignment in args.set or ():
        key = assignment.partition("=")[0]
        if given.get(key) is not None:
            flag = f"--{key.replace('_', '-')}"
            required = f"must not set what {flag} sets"
            raise UsageError(f"--set {shown(assignment)}", required, given[key], "Keep one.")
    config = override(config, **given)
    config = set_values(config, args.set) if args.set else config
    is_classifier = config.kind == "classifier"
    if is_classifier and getattr(args, "unlabelled", None) and not uses_unlabelled(config):
        raise UsageError(
            "--unlabelled",
            "requires a configuration that uses images without labels",
            "one without the key unlabelled",
            "Use configuration/recipes/few_labels_100.json, add this key, or leave out the images.",
        )
    return config


def uses_unlabelled(config: Config) -> bool:
    """Whether a classifier also learns from images without labels."""
    return getattr(config, "unlabelled", None) is not None


def get_sample_seed(args: argparse.Namespace, configs: list[tuple[str, Config]]) -> int:
    """The seed that draws the images of --limit and the labels of --labels-per-class.

    It is that of the run, or of the first configuration.
    """
    sample = read_start(find_interrupted(args.resume)).sample if args.resume else None
    if sample:
        return sample["seed"]
    return configs[0][1].seed if configs else args.seed or 0


def check_destinations(args: argparse.Namespace) -> None:
    """Checks that the run, and the model to save, can be written, before hours are spent.

    Only the first of several workers writes.

    Raises:
        UsageError: One of them cannot.
    """
    from cae.records import tracking

    tracking.check_flags(args)
    if _is_follower(args):
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
            "requires exactly one configuration",
            len(args.config),
            "Pass one -c FILE, or --runs-dir.",
        )


def check_layers(config: Config, model: str | None, input_shape: Shape, where: object) -> None:
    """Checks that the layers fit the images, as far as that is possible without Keras.

    Args:
        config: The configuration, called `where` in errors.
        model: The saved model, already checked, that a flag names for the encoder.
        input_shape: (height, width, channels) of the images.

    Raises:
        UsageError: A classifier has no encoder.
        ModelFileError: The configuration names a file that is not a model, or one for other images.
        ConfigurationError: The layers do not fit.
    """
    if config.kind == "classifier":
        if model:
            return
        if config.encoder_layers is None:
            raise UsageError(
                where,
                "an encoder is required",
                "neither encoder_layers nor -model",
                "Add -model MODEL, trained with autoencoder.py --save MODEL.",
            )
        if isinstance(config.encoder_layers, str):
            check_model_shape(config.encoder_layers, input_shape)
            return
    check_shapes(config, input_shape, where)


def check_model_shape(
    path: str,
    input_shape: Shape,
    remedy: str = "Train an autoencoder on images of this shape first.",
    *,
    any_colour: bool = False,
) -> None:
    """Checks that a saved model takes these images, without loading Keras.

    Args:
        path: The model.
        input_shape: (height, width, channels) of the images.
        remedy: Where transposing does not help.
        any_colour: Whether gray images fit an RGB model and vice versa: see `match_colour`.

    Raises:
        ModelFileError: It is not a model, or takes images of another shape.
    """
    expected = read_metadata(path).get("input_shape")
    if any_colour and expected and {expected[2], input_shape[2]} == {1, 3}:
        input_shape = (*input_shape[:2], expected[2])
    if expected and tuple(expected) != input_shape:
        raise ModelFileError(
            path,
            f"requires images of shape {format_shape(tuple(expected))}",
            f"images of shape {format_shape(input_shape)}",
            "Add --transpose, or leave it out if it is there."
            if swap_sides(input_shape) == tuple(expected)
            else remedy,
        )


def _take_over_model(args: argparse.Namespace, kind: Kind) -> tuple[str, Config]:
    """The configuration that a saved model was trained with."""
    path = args.init_from
    metadata = read_metadata(path)
    if "model_info" not in metadata:
        raise ModelFileError(
            path, "must record how it was trained", "a file of another program", "Add -c FILE."
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
    """Fills in the flags of an interrupted run; returns its name and configuration."""
    others = [flag for flag in args.given if flag not in RESUME_FLAGS]
    if others:
        raise UsageError(
            "--resume",
            "must be given alone or with --no-plots, --show, --overwrite or --devices",
            ", ".join(others),
            "Remove them, or start a new run.",
        )
    path = find_interrupted(args.resume)
    start = read_start(path)
    if start.kind != kind:
        raise UsageError(
            "--resume",
            f"must be a run of {PROGRAMS[kind]}",
            f"one of {start.program}",
            f"Type: {shlex.join([*find_command(start.program), '--resume', args.resume])}",
        )
    config = validate_config(start.config, f"config in {path / START_FILE}", kind)
    for name, value in see_from_here(start).model_dump(include=set(vars(args))).items():
        setattr(args, name, getattr(args, name) or value)
    args.config = [str(path / START_FILE)]
    return start.name, config


def see_from_here(start: Start) -> Arguments:
    """The flags of a run, with its paths as they are called here."""
    values = start.arguments.model_dump()
    encoder = start.config.get("encoder_layers")
    if values["model"] is None and isinstance(encoder, str):
        values["model"] = encoder
    for name, value in values.items():
        is_file = name == "class_names" and value and Path(start.folder, value).is_file()
        if name in PATHS or is_file:
            values[name] = _seen_from_here(value, start.folder)
    return Arguments(**values)


def _seen_from_here(path: str | None, folder: str) -> str | None:
    """A path that was given in `folder`, as it is called here."""
    if path is None or path in DATASETS or Path(folder) == Path.cwd():
        return path
    return str(Path(folder) / path)

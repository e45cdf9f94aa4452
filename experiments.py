"""Trains recipes, and trains and compares many configurations; finds, reports and removes runs.

python experiments.py recipe few_labels_100 -d mnist --labels-per-class 10
python experiments.py run configuration/studies/research.json
python experiments.py compare runs/research/classifiers
python experiments.py list
"""

import argparse
from functools import partial
from typing import Any

from cae.config.choices import (
    ALL,
    COUNTS,
    HEAD,
    MAX_IMAGES,
    MAX_SEED,
    METHODS,
    MOST_EPOCHS,
    PRETRAINING_METHODS,
    PROGRAMS,
    RECIPE_METHODS,
    STEPS,
    TABLE_COLUMNS,
)
from cae.config.shipped import find_shipped
from cae.errors import parse_whole_number
from cae.programs import flags, start

MAX_PER_TRIAL = 4096  # cores, or GPUs
MAX_RUNS = 10**6


def build_parser() -> flags.Parser:
    """The command line of this program."""
    parser = flags.Parser(prog="experiments.py", description=__doc__)
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_recipe(commands)
    _add_compare(commands)
    _add_label_efficiency(commands)
    _add_report(commands)
    _add_shelf(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the program and returns its exit code."""
    return start.run(start.call_action, build_parser(), argv)


def _find_study(given: str) -> str:
    """The path of a study, checked before what trains it takes a while to load.

    Raises:
        ConfigurationError: It is not right; not argparse's error, so it is reported as it is.
    """
    from cae.config.study import load_stages

    path = find_shipped(given)
    load_stages(path)
    return path


def _add_run(commands: Any) -> None:
    parser = commands.add_parser("run", help="train a study, or continue an interrupted one")
    parser.set_defaults(action="cae.studies.run:run")
    parser.add_argument(
        "study",
        type=_find_study,
        metavar="STUDY.json",
        help="the study, or a chain of studies",
    )
    images = "images to use instead of those of the study, in any form"
    flags.add(parser, "--dataset", metavar="DATASET", help=images)
    flags.add(parser, "--labels", metavar="FILE", help="labels of the images of -d")
    flags.add(parser, *flags.FEW_LABELS, *flags.CHANGES)
    flags.add(parser, "--epochs", help="train for N epochs, whatever the configurations say")
    flags.add(parser, "--seed", help="train with this seed only")
    flags.add(parser, "--limit", "--runs-dir", "--no-plots")
    parser.add_argument(
        "--keep",
        choices=("best", "all"),
        default="best",
        metavar="WHICH",
        help="which models to keep: best (the best trial of each base, the default) or all",
    )
    _add_ray_flags(parser)
    flags.add(parser, *flags.TRACKING)
    flags.add_groups(parser, {"own images": flags.IMAGES})


def _add_recipe(commands: Any) -> None:
    parser = commands.add_parser(
        "recipe",
        help="train an autoencoder on all images, and a classifier with few labels on its encoder",
        description="Trains the autoencoder of a recipe on all training images, labelled or not, "
        "then its classifier on that encoder, and tests it. After an interruption, run the same "
        "command again.",
    )
    parser.set_defaults(action="cae.studies.recipe:run")
    recipe = "a shipped recipe or a file (default: the one that suits the number of labels)"
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help=recipe)
    flags.add(parser, "--dataset", required=True)
    flags.add(parser, "--labels", "--test", "--test-labels", *flags.FEW_LABELS)
    flags.add(parser, "--limit", *flags.CHANGES)
    flags.add_groups(parser, {"own images": flags.IMAGES})
    repetitions = "train N pairs, each with its own seed and draw of labels (default: 1)"
    parser.add_argument("--seeds", **flags.number(1, MAX_SEED, repetitions, default=1))
    flags.add(parser, "--seed", help="the seed, or the first of --seeds (default: 0)", default=0)
    flags.add(parser, "--runs-dir", "--no-plots", *flags.TRACKING)
    name = "name of the folder of both runs (default: the recipe's and the data set's)"
    flags.add(parser, "--name", help=name)


def _add_ray_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="train trials side by side with Ray: on this machine, or on the Ray cluster at "
        "ADDRESS",
    )
    cores = "with --ray: cores per trial (default: 2, or 1 on a machine with one)"
    parser.add_argument("--cpus-per-trial", **flags.number(1, MAX_PER_TRIAL, cores))
    parser.add_argument(
        "--gpus-per-trial",
        type=_share_of_gpus,
        metavar="X",
        help="with --ray: GPUs per trial, 0.5 for two trials per GPU (default: 1, or 0 without "
        "a GPU)",
    )


def _share_of_gpus(text: str) -> float:
    """The type of a flag: a fraction of one GPU, or a number of whole ones."""
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not (0 <= share <= 1 or share in range(MAX_PER_TRIAL)):
        raise argparse.ArgumentTypeError(
            f"must be a number from 0 to 1, or a whole number, got {text!r}"
        )
    return share


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser(
        "compare", help="compare runs, those of recipes, or the trials of studies"
    )
    parser.set_defaults(action="cae.studies.compare:run")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folders of runs, recipes and studies"
    )
    parser.add_argument(
        "--sort",
        choices=tuple(TABLE_COLUMNS),
        default="mean",
        metavar="KEY",
        help=f"sort the table by {', '.join(TABLE_COLUMNS)} (default: mean)",
    )
    parser.add_argument("--csv", metavar="FILE", help="also write one row per run to this new file")
    parser.add_argument("--figures", metavar="DIR", help="also draw figures into this new folder")


def _add_label_efficiency(commands: Any) -> None:
    parser = commands.add_parser(
        "label-efficiency",
        help="measure what pretraining and recipes are worth at each number of labels",
        description="Measures what pretraining and recipes are worth at each number of labels, "
        "beside baselines without them.",
    )
    parser.set_defaults(action="cae.studies.label_efficiency:run")
    flags.add(parser, "--dataset", required=True)
    flags.add(parser, "--labels", "--test", "--test-labels", *flags.CHANGES)
    model = "the saved autoencoder to evaluate (default: that of the recipe)"
    flags.add(parser, "--model", help=model)
    parser.add_argument(
        "--recipes",
        nargs="+",
        metavar="RECIPE",
        help="recipes, by name or file; each label count uses the recipe with the largest `labels` "
        "up to it (default: all shipped ones)",
    )
    parser.add_argument(
        "-c",
        "--config",
        type=find_shipped,
        default=HEAD,
        metavar="FILE",
        help=f"head, optimizer and batch size of the classifiers (default: {HEAD})",
    )
    parser.add_argument(
        "--pretraining",
        metavar="IMAGES",
        help="the images that the autoencoder was trained on (default: those of -d)",
    )
    flags.add_groups(parser, flags.FOREIGN | {"own images": flags.IMAGES})
    _add_measurement_flags(parser)
    flags.add(parser, "--limit", "--runs-dir")
    parser.add_argument(
        "--allow-leakage",
        action="store_true",
        help="measure even if test images are among the pretraining or training images",
    )
    name = "name of the folder of results (default: label-efficiency, or without -model recipes, "
    flags.add(parser, "--name", help=f"{name}and the data set's); an existing one is continued")


def _add_measurement_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--counts",
        nargs="+",
        type=_count,
        metavar="N",
        help="labels per class, or all (default: those of "
        f"{' '.join(COUNTS)} that the data set has)",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        metavar="METHOD",
        help=f"methods to compare (default: with -model {' '.join(PRETRAINING_METHODS)}, without "
        f"it {' '.join(RECIPE_METHODS)})",
    )
    repetitions = "repeat each measurement N times, with seeds 0 to N-1 (default: 5)"
    parser.add_argument("--seeds", **flags.number(1, MAX_SEED, repetitions, default=5))
    steps = f"optimizer steps per network, but at most {MOST_EPOCHS} epochs (default: {STEPS})"
    parser.add_argument("--steps", **flags.number(1, 10**9, steps, default=STEPS))


def _count(text: str) -> str:
    number = flags.as_type(partial(parse_whole_number, low=1, high=MAX_IMAGES))
    return text if text == ALL else str(number(text))


def _add_report(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="write a run, a test, a recipe, a study, a chain or label-efficiency as one HTML page",
    )
    parser.set_defaults(action="cae.report.report:run")
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="the folder of a run, a test, a recipe, a study, a chain of studies, or of "
        "label-efficiency",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="where to write the page (default: report.html in that folder)",
    )


def _add_shelf(commands: Any) -> None:
    """Adds the commands that find and remove runs."""
    parser = commands.add_parser("list", help="list the recorded runs, the latest first")
    parser.set_defaults(action="cae.records.shelf:list_runs")
    _add_selection(parser, None)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")

    parser = commands.add_parser(
        "best",
        help="print the path of the best saved model, as in "
        "-model $(python experiments.py best -d mnist --kind autoencoder)",
    )
    parser.set_defaults(action="cae.records.shelf:print_best")
    _add_selection(parser, "classifier")

    parser = commands.add_parser("show", help="print the record of a run")
    parser.set_defaults(action="cae.records.shelf:show_run")
    parser.add_argument("run", metavar="RUN", help="its folder")

    parser = commands.add_parser("rm", help="remove runs")
    parser.set_defaults(action="cae.records.shelf:remove_runs")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="their folders")
    _add_yes(parser)

    parser = commands.add_parser(
        "prune",
        help="remove old runs",
        description="Removes old complete runs. It keeps the latest, the best of each kind and "
        "data set, the runs whose models these started from, the trials of studies and the runs of "
        "recipes.",
    )
    parser.set_defaults(action="cae.records.shelf:prune_runs")
    stay = flags.number(0, MAX_RUNS, "number of latest runs to keep (default: 20)", default=20)
    parser.add_argument("--keep", **stay)
    flags.add(parser, "--runs-dir")
    _add_yes(parser)


def _add_selection(parser: argparse.ArgumentParser, kind: str | None) -> None:
    flags.add(parser, "--dataset", metavar="DATASET", help="only runs on these images")
    parser.add_argument(
        "--kind",
        choices=(*PROGRAMS, "test") if kind is None else tuple(PROGRAMS),
        default=kind,
        help=f"only runs of this kind (default: {kind or 'all'})",
    )
    flags.add(parser, "--runs-dir")


def _add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask before removing")


if __name__ == "__main__":
    raise SystemExit(main())

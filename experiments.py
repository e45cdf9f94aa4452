"""Trains and compares many configurations, as a study says.

python experiments.py run configuration/studies/research.json
python experiments.py compare runs/research/classifiers
"""

import argparse
import io
import math
import re
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.table import Table

from cae import terminal
from cae.config.fields import MAX_EPOCHS, MAX_SEED
from cae.config.study import StudyFile, expand, load_stages
from cae.config.study_schema import METRICS, Data, Study
from cae.data.datasets import Scaling, check_dataset, load_dataset
from cae.data.named import NAMED_DATASETS
from cae.data.splits import encode_labels
from cae.errors import UsageError
from cae.files import FIGURE_DPI, locked, replace_file
from cae.programs import flags, start
from cae.records import tracking
from cae.records.evaluation import read_predictions
from cae.records.run import TRIALS_FILE, check_runs_dir
from cae.records.saved_models import read_metadata
from cae.studies.compare import (
    COLUMNS,
    Group,
    Result,
    best_of,
    best_paths,
    draw_comparison,
    get_finalists,
    group_results,
    influences,
    read_runs,
    read_study,
    read_trials,
    sort_groups,
    verdict,
    write_csv,
)
from cae.studies.trials import Stage, write_text
from cae.studies.workload import estimate_study, format_duration

MAX_CPUS = 4096
RAY_PACKAGES = ("ray", "optuna")


def build_parser() -> flags.Parser:
    """The command line of this program."""
    parser = flags.Parser(prog="experiments.py", description=__doc__)
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_compare(commands)
    _add_label_efficiency(commands)
    _add_report(commands)
    return parser


def _add_run(commands: Any) -> None:
    parser = commands.add_parser("run", help="train what a study says, or go on with it")
    parser.set_defaults(action=run_study)
    parser.add_argument(
        "study",
        type=flags.config_file,
        metavar="STUDY.json",
        help="the study, or a chain of studies",
    )
    parser.add_argument(
        "-d",
        "--dataset",
        metavar="DATASET",
        help="other images than the study's: an idx file or a name",
    )
    parser.add_argument("-dl", "--labels", metavar="FILE", help="labels of the images of -d")
    for flag, low, high, text in (
        ("--epochs", 1, MAX_EPOCHS, "instead of every configuration's"),
        ("--limit", 1, flags.MAX_IMAGES, "use only the first N training images"),
        ("--seed", 0, MAX_SEED, "this one seed instead of the study's"),
    ):
        parser.add_argument(flag, type=flags.whole_number(low, high), metavar="N", help=text)
    parser.add_argument(
        "--runs-dir",
        default="runs",
        metavar="DIR",
        help="where studies are recorded (default: runs)",
    )
    parser.add_argument(
        "--keep",
        choices=("best", "all"),
        default="best",
        metavar="WHICH",
        help="which models to keep: best (of each base the best trial's, the default) or all",
    )
    parser.add_argument("--no-plots", action="store_true", help="draw no figures")
    parser.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="train trials side by side with Ray: on this machine, or in the cluster at ADDRESS",
    )
    parser.add_argument(
        "--cpus-per-trial",
        type=flags.whole_number(1, MAX_CPUS),
        metavar="N",
        help="with --ray: cores of each trial (default: 2, or 1 where there is one)",
    )
    parser.add_argument(
        "--gpus-per-trial",
        type=_share_of_gpus,
        metavar="X",
        help="with --ray: GPUs of each trial, 0.5 for two on one (default: 1, or 0 without any)",
    )
    flags.add_tracking_flags(parser)


def _share_of_gpus(text: str) -> float:
    """The type of a flag: a part of a GPU, or a number of whole ones."""
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not (0 <= share <= 1 or share in range(MAX_CPUS)):
        raise argparse.ArgumentTypeError(
            f"must be a number from 0 to 1, or a whole number, got {text!r}"
        )
    return share


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser("compare", help="compare runs, or the trials of a study")
    parser.set_defaults(action=compare)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run directories, or directories of studies"
    )
    parser.add_argument(
        "--sort",
        choices=tuple(COLUMNS),
        default="mean",
        metavar="KEY",
        help=f"sort the table by {', '.join(COLUMNS)} (default: mean)",
    )
    parser.add_argument("--csv", metavar="FILE", help="also write a row a run to this new file")
    parser.add_argument("--figures", metavar="DIR", help="also draw figures into this new folder")


def _add_label_efficiency(commands: Any) -> None:
    from cae.studies import label_efficiency

    label_efficiency.add_parser(commands)
    commands.choices["label-efficiency"].set_defaults(action=label_efficiency.run)


def _add_report(commands: Any) -> None:
    from cae.report import report

    report.add_parser(commands)
    commands.choices["report"].set_defaults(action=report.run)


def main(argv: list[str] | None = None) -> int:
    """Runs the program and returns its exit code."""
    return start.run(lambda args: args.action(args), build_parser(), argv)


# --- run ------------------------------------------------------------------------------------


def run_study(args: argparse.Namespace) -> int:
    """Trains the studies of a file, and says how to go on when stopped; returns the exit code."""
    try:
        exit_code = _run_stages(args)
    except KeyboardInterrupt:  # between two trials
        exit_code = 128 + signal.SIGINT
    if exit_code > 128:
        again = re.sub(r"^experiments\.py", "python experiments.py", args.command)
        terminal.ERR.print(f"Stopped. Go on with: {again}")
    return exit_code


def _run_stages(args: argparse.Namespace) -> int:
    tracking.check_flags(args)
    _check_ray(args)
    name, files = load_stages(args.study)
    files = [StudyFile(file.path, _override(file.study, args)) for file in files]
    for file in files:
        expand(file, None, {})  # what is wrong in the last is said before the first
    folder = check_runs_dir(args.runs_dir)
    if len(files) > 1 or name != files[0].study.name:
        folder = check_runs_dir(folder / name)
    _say_time(name, files)
    exit_code = 0
    for file in files:
        exit_code = max(exit_code, _run_rounds(file, folder, args))
        if exit_code > 128:
            break
    return exit_code


def _check_ray(args: argparse.Namespace) -> None:
    """Checks the flags about Ray before anything begins."""
    shares = (args.cpus_per_trial, args.gpus_per_trial)
    if args.ray is None and shares != (None, None):
        raise UsageError("--cpus-per-trial and --gpus-per-trial", "need --ray", None, "Add --ray.")
    missing = [name for name in RAY_PACKAGES if args.ray and find_spec(name) is None]
    if missing:
        raise UsageError(
            "--ray",
            "needs packages that are installed apart",
            f"no {missing[0]}",
            "Type: pip install -r requirements-cluster.txt",
        )


def _choose_stage(study: Study, args: argparse.Namespace) -> type[Stage]:
    """How the trials of a study are trained: one after another, or with Ray."""
    if args.ray is None:
        return Stage
    from cae.studies import parallel

    return parallel.choose_stage(study)


def _say_time(name: str, files: list[StudyFile]) -> None:
    """Says what to expect; a study that goes on needs less."""
    seconds = 0.0
    for file in files:
        count, shape = check_dataset(file.study.data.dataset, file.study.data.labels)
        seconds += estimate_study(file, shape, count, files)
    terminal.ERR.print(f"{name}: about {format_duration(seconds)} from its beginning, on 2 cores")


def _run_rounds(file: StudyFile, folder: Path, args: argparse.Namespace) -> int:
    """Screens the configurations of a study if it says so, and trains those that go on."""
    exit_code, finalists = 0, None
    tracking.prepare(args, file.study.kind)
    stage_class = _choose_stage(file.study, args)
    for part in file.rounds:
        stage_folder = check_runs_dir(folder / part.study.name)
        with locked(stage_folder):
            stage = stage_class(part, stage_folder, args, finalists)
            exit_code = max(exit_code, stage.run())
            if exit_code > 128:
                break
            _conclude(stage.study, stage.folder, args)
        if file.study.screening:
            finalists = get_finalists(stage.folder, file.study.screening.finalists)
    return exit_code


def _override(study: Study, args: argparse.Namespace) -> Study:
    """The study with the flags' values in place of its own."""
    if args.labels and not args.dataset:
        raise UsageError("-dl", "needs the images that it labels", "no -d", "Add -d DATASET.")
    data = study.data
    if args.dataset:
        data = Data(dataset=args.dataset, labels=args.labels, limit=data.limit)
    if args.limit:
        data = data.model_copy(update={"limit": args.limit})
    changes: dict[str, Any] = {"data": data}
    if args.seed is not None:
        changes["seeds"] = [args.seed]
    if args.epochs:
        changes["epochs"] = args.epochs
    return study.model_copy(update=changes)


def _conclude(study: Study, folder: Path, args: argparse.Namespace) -> None:
    """Compares the trials, keeps the best models, and draws the figures."""
    results = read_study(folder)
    if not results:
        return
    groups = group_results(results, study.metric)
    _write_table(folder / "results.csv", groups)
    _print_comparison(study.name, groups, groups)
    best = best_of(groups)
    if args.keep == "best":
        _forget_models(results, set(best_paths(results, study.metric)))
    if best and not args.no_plots:
        _save_figures(folder / "plots", draw_comparison(groups))
        if study.kind == "classifier":
            _save_figures(folder / "plots", _draw_best(best, study.data))
    if best:
        terminal.say(f"Best trial: {terminal.relative(best.path)}")
        report = best.path / "classification_report.txt"
        if report.exists():
            terminal.say(report.read_text(encoding="utf-8"))
    terminal.say(f"Table, figures and trials: {terminal.relative(folder)}")


# --- compare --------------------------------------------------------------------------------


def compare(args: argparse.Namespace) -> int:
    """Compares runs; returns the exit code."""
    results = [result for path in args.runs for result in read_runs(Path(path))]
    kinds = {result.history.kind for result in results}
    if len(kinds) != 1:
        found = " and ".join(sorted(f"{kind}s" for kind in kinds)) or "no finished run"
        raise UsageError("RUN", "must name runs of one kind", found, "Compare each kind by itself.")
    for flag, path in (("--csv", args.csv), ("--figures", args.figures)):
        if path and Path(path).exists():
            raise UsageError(flag, "must be new", path, "Give another name.")
    groups = group_results(results, _metric_of(args.runs, kinds.pop()))
    _print_comparison("Comparison", groups, sort_groups(groups, args.sort))
    if args.csv:
        _write_table(Path(args.csv), groups)
    if args.figures and best_of(groups):
        for path in _save_figures(Path(args.figures), draw_comparison(groups)):
            terminal.say(f"Figure: {terminal.relative(path)}")
    return 0


def _metric_of(paths: list[str], kind: str) -> str:
    """The metric of the studies if they agree on one, else that of the kind."""
    folders = [Path(path) for path in paths if (Path(path) / TRIALS_FILE).exists()]
    metrics = {read_trials(folder).metric for folder in folders}
    return metrics.pop() if len(metrics) == 1 else next(iter(METRICS[kind]))


def _forget_models(results: list[Result], kept: set[Path]) -> None:
    """Deletes the models of the trials that nobody will use; their records stay."""
    for result in results:
        if result.path not in kept:
            (result.path / "model.keras").unlink(missing_ok=True)


def _print_comparison(title: str, ranked: list[Group], rows: list[Group]) -> None:
    """Prints the table, what mattered, and which is best, if any can be told from the next."""
    keys = [key for key in COLUMNS if any(group.cell(key) is not None for group in rows)]
    metric = ranked[0].metric
    table = Table(title=f"{title}: {metric}", title_justify="left")
    for key in keys:
        if key == "name":
            table.add_column(COLUMNS[key], overflow="fold", min_width=12)
        else:
            table.add_column(COLUMNS[key], justify="right", no_wrap=True)
    for group in rows:
        table.add_row(*(_cell(group.cell(key)) for key in keys))
    terminal.print_table(table)
    found = influences(ranked)
    if found:
        mattered = Table(title=f"Which hyperparameters mattered for {metric}", title_justify="left")
        mattered.add_column("hyperparameter")
        mattered.add_column("mean (sd; configurations) of each value")
        for influence in found:
            mattered.add_row(influence.key, "\n".join(_describe_values(influence.values)))
        terminal.print_table(mattered)
    terminal.say(verdict(ranked))


def _describe_values(values: dict[str, tuple[int, float, float]]) -> Iterator[str]:
    for text, (count, mean, sd) in values.items():
        yield f"{text}: {mean:.4g} ({'–' if math.isnan(sd) else f'{sd:.2g}'}; {count})"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _draw_best(best: Result, data: Data) -> dict[str, Any]:
    """The best classifier's curves, confusion matrix and labelled images, from its record."""
    from cae.figures.classes import (
        classifier_loss_visualization,
        classifier_prediction_visualization,
    )

    figures = classifier_loss_visualization([best.history], [None])
    predictions, model = best.path / "predictions.csv", best.path / "model.keras"
    if not (predictions.exists() and model.exists()):
        return figures  # no images were kept aside, or another trial was the best before
    metadata = read_metadata(model)
    test = data.test or (data.dataset if data.dataset in NAMED_DATASETS else None)
    if test:
        shown = load_dataset(test, data.test_labels, split="test")
    else:
        shown = load_dataset(data.dataset, data.labels, limit=data.limit)
    predicted = read_predictions(predictions)
    return figures | classifier_prediction_visualization(
        Scaling(**metadata["scaling"]).apply(shown.images[predicted.indices]),
        encode_labels(predicted.labels, predicted.classes),
        predicted.probabilities,
        metadata["class_names"],
    )


def _save_figures(folder: Path, figures: dict[str, Any]) -> list[Path]:
    """Saves figures as `<name>.png`, in place of those of an earlier start."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{name}.png" for name in figures]
        for path, figure in zip(paths, figures.values(), strict=True):
            with replace_file(path) as file:
                figure.savefig(file, dpi=FIGURE_DPI, format="png")
    except OSError as error:
        raise UsageError(folder, "must be writable", error.strerror, "Free space.") from error
    return paths


def _write_table(path: Path, groups: list[Group]) -> None:
    text = io.StringIO(newline="")
    write_csv(groups)(text)
    write_text(path, text.getvalue())


if __name__ == "__main__":
    raise SystemExit(main())

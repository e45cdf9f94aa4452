"""Trains and compares many configurations, as a study says.

python experiments.py run configuration/studies/research.json
python experiments.py compare runs/research/classifiers
"""

import argparse
import csv
import gc
import importlib
import io
import json
import math
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

import cli
from comparison import (
    COLUMNS,
    Group,
    Result,
    group_results,
    influences,
    read_result,
    sort_groups,
    verdict,
    write_csv,
)
from dataset import NAMED_DATASETS, Scaling, encode_labels, get_record, load_dataset
from errors import UsageError, UserError
from hyperparameters import MAX_EPOCHS, MAX_SEED, dump_config
from idx import replace_file
from model_files import read_metadata
from runs import FIGURE_DPI, PARTIAL, START_FILE, check_runs_dir
from studies import (
    METRICS,
    Base,
    BestEncoder,
    Data,
    Study,
    StudyFile,
    Trial,
    expand,
    load_stages,
)

PROGRAMS = {"autoencoder": "autoencoder", "classifier": "classification"}
TRIALS_FILE = "trials.json"
DONE, FAILED, WAITING = "done", "failed", "waiting"


def build_parser() -> cli.Parser:
    """The command line of this program."""
    parser = cli.Parser(prog="experiments.py", description=__doc__)
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_compare(commands)
    _add_label_efficiency(commands)
    return parser


def _add_run(commands: Any) -> None:
    parser = commands.add_parser("run", help="train what a study says, or go on with it")
    parser.set_defaults(action=run_study)
    parser.add_argument("study", metavar="STUDY.json", help="the study, or a chain of studies")
    parser.add_argument(
        "-d",
        "--dataset",
        metavar="DATASET",
        help="other images than the study's: an idx file or a name",
    )
    parser.add_argument("-dl", "--labels", metavar="FILE", help="labels of the images of -d")
    for flag, low, high, text in (
        ("--epochs", 1, MAX_EPOCHS, "instead of every configuration's"),
        ("--limit", 1, cli.MAX_IMAGES, "use only the first N training images"),
        ("--seed", 0, MAX_SEED, "this one seed instead of the study's"),
    ):
        parser.add_argument(flag, type=cli.whole_number(low, high), metavar="N", help=text)
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
    import label_efficiency

    label_efficiency.add_parser(commands)
    commands.choices["label-efficiency"].set_defaults(action=label_efficiency.run)


def main(argv: list[str] | None = None) -> int:
    """Runs the program and returns its exit code."""
    return cli.run(lambda args: args.action(args), build_parser(), argv)


# --- run ------------------------------------------------------------------------------------


def run_study(args: argparse.Namespace) -> int:
    """Trains the studies of a file, and says how to go on when stopped; returns the exit code."""
    try:
        exit_code = _run_stages(args)
    except KeyboardInterrupt:  # between two trials
        exit_code = 128 + signal.SIGINT
    if exit_code > 128:
        again = re.sub(r"^experiments\.py", "python experiments.py", args.command)
        cli.ERR.print(f"Stopped. Go on with: {again}")
    return exit_code


def _run_stages(args: argparse.Namespace) -> int:
    name, files = load_stages(args.study)
    files = [StudyFile(file.path, _override(file.study, args)) for file in files]
    for file in files:
        expand(file, None, {}, args.epochs)  # what is wrong in the last is said before the first
    folder = check_runs_dir(args.runs_dir)
    if len(files) > 1 or name != files[0].study.name:
        folder = check_runs_dir(folder / name)
    exit_code = 0
    for file in files:
        stage = Stage(file, folder / file.study.name, args)
        exit_code = max(exit_code, stage.run())
        if exit_code > 128:
            break
        stage.conclude()
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
    seeds = study.seeds if args.seed is None else [args.seed]
    return study.model_copy(update={"data": data, "seeds": seeds})


@dataclass
class Outcome:
    """What became of a trial.

    Attributes:
        trial: What was to be trained.
        status: `DONE`, `FAILED` or `WAITING`.
        reason: Why it failed, in a line.
        value: The study's metric; NaN until it is done.
    """

    trial: Trial
    status: str = WAITING
    reason: str = ""
    value: float = math.nan


class Stage:
    """One study while it runs.

    Args:
        file: The study.
        folder: Where its trials are recorded.
        args: The flags.
    """

    def __init__(self, file: StudyFile, folder: Path, args: argparse.Namespace):
        self.study = file.study
        self.folder = folder
        self.args = args
        models = {base.label: self._find_model(file, base) for base in self.study.bases}
        self.outcomes = [
            Outcome(trial) for trial in expand(file, self._identify_data(), models, args.epochs)
        ]
        for outcome in self.outcomes:
            if (folder / outcome.trial.id).exists():
                self._judge(outcome)

    def _identify_data(self) -> list[Any]:
        """What tells the data from others: its files' SHA-256 and the limit."""
        data, labelled = self.study.data, self.study.kind == "classifier"
        sets = [load_dataset(data.dataset, data.labels, limit=1, labels_required=labelled)]
        if labelled and (data.test or data.dataset in NAMED_DATASETS):
            test = data.test or data.dataset
            sets.append(load_dataset(test, data.test_labels, split="test", limit=1))
        digests = [file["sha256"] for dataset in sets for file in dataset.files]
        return [*digests, data.limit]

    def _find_model(self, file: StudyFile, base: Base) -> tuple[str | None, str | None]:
        """The model a base takes its encoder from, and what tells it from others."""
        if base.encoder:
            path = _best_model(self.folder.parent / base.encoder.study, base.encoder)
        elif base.model:
            path = file.resolve(base.model)
            read_metadata(path)
        else:
            return None, None
        return str(path), get_record(path)["sha256"]

    def run(self) -> int:
        """Trains what is not done yet; returns the exit code."""
        for name in ("logs", "configuration"):
            check_runs_dir(self.folder / name)
        self._write_trials()
        with Board(cli.ERR, self.study, self.outcomes) as board:
            for outcome in [o for o in self.outcomes if o.status == WAITING]:
                exit_code = self._run_trial(outcome, board)
                self._write_trials()
                if exit_code > 128:
                    return exit_code
                board.show(outcome)
        failed = [outcome for outcome in self.outcomes if outcome.status == FAILED]
        for outcome in failed:
            cli.ERR.print(f"failed: {outcome.trial.id}: {outcome.reason}")
        return cli.EXIT_USER_ERROR if failed else 0

    def _run_trial(self, outcome: Outcome, board: "Board") -> int:
        """Trains one trial or goes on with it; returns the exit code of its program."""
        log_path = self.folder / "logs" / f"{outcome.trial.id}.txt"
        with log_path.open("a", encoding="utf-8") as file, board.following(Log(file)) as log:
            exit_code = _call(PROGRAMS[self.study.kind], self._arguments(outcome.trial), log)
        if exit_code <= 128:
            self._judge(outcome, log.error)
        return exit_code

    def _judge(self, outcome: Outcome, reason: str = "") -> None:
        """Takes the result of a trial from its record; `reason` is why there may be none."""
        outcome.status = FAILED
        path = self.folder / outcome.trial.id
        if not path.exists():
            outcome.reason = reason or "it left no record"
            return
        try:
            history = read_result(path).history
        except UserError as error:
            outcome.reason = str(error)
            return
        outcome.value = history.metrics.get(self.study.metric, math.nan)
        if history.divergence:
            outcome.reason = str(history.divergence)
        elif not math.isfinite(outcome.value):
            outcome.reason = f"its record has no {self.study.metric}"
        else:
            outcome.status = DONE

    def _arguments(self, trial: Trial) -> list[str]:
        """The command line of a trial: that of an ordinary run, or of going on with one."""
        path = self.folder / trial.id
        partial = path.with_name(path.name + PARTIAL)
        if (partial / START_FILE).exists():
            return ["--resume", str(path), "--no-plots"]
        shutil.rmtree(partial, ignore_errors=True)  # killed before it had begun
        config = self.folder / "configuration" / f"{trial.id}.json"
        _write(config, dump_config(trial.config))
        data = self.study.data
        flags = {
            "-d": data.dataset,
            "-dl": data.labels,
            "-t": data.test if self.study.kind == "classifier" else None,
            "-tl": data.test_labels if self.study.kind == "classifier" else None,
            "--limit": data.limit,
            "-model": trial.model,
            "-c": config,
            "--name": trial.configuration,
            "--run-dir": path,
        }
        given = [str(part) for item in flags.items() if item[1] is not None for part in item]
        return [*given, "--no-plots"]

    def _write_trials(self) -> None:
        """Writes `trials.json`: what there is to train, and what became of it."""
        document = {
            "name": self.study.name,
            "kind": self.study.kind,
            "metric": self.study.metric,
            "command": self.args.command,
            "trials": [
                {
                    "id": outcome.trial.id,
                    "base": outcome.trial.base,
                    "configuration": outcome.trial.configuration,
                    "seed": outcome.trial.config.seed,
                    "sha256": outcome.trial.digest,
                    "encoder": outcome.trial.model,
                    "status": outcome.status,
                    "reason": outcome.reason,
                }
                for outcome in self.outcomes
            ],
        }
        _write(self.folder / TRIALS_FILE, json.dumps(document, indent=2) + "\n")

    def conclude(self) -> None:
        """Compares the trials, keeps the best models, and draws the figures."""
        results = _read_study(self.folder)
        if not results:
            return
        groups = group_results(results, self.study.metric)
        _write_table(self.folder / "results.csv", groups)
        _print_comparison(self.study.name, groups, groups)
        best = _best_of(groups)
        if self.args.keep == "best":
            _forget_models(results, set(_best_paths(results, self.study.metric)))
        if best and not self.args.no_plots:
            _save_figures(self.folder / "plots", _draw_comparison(groups))
            if self.study.kind == "classifier":
                _save_figures(self.folder / "plots", _draw_best(best, self.study.data))
        if best:
            cli.say(f"Best trial: {cli.relative(best.path)}")
        cli.say(f"Table, figures and trials: {cli.relative(self.folder)}")


def _call(program: str, arguments: list[str], log: "Log") -> int:
    """Runs a program in this process with its output in `log`; returns its exit code."""
    try:
        with redirect_stdout(log), redirect_stderr(log):
            return importlib.import_module(program).main(arguments)
    except Exception as error:  # a trial that breaks must not end the study
        message = " ".join(f"{type(error).__name__}: {error}".split())
        log.write(f"error: {message[:200]}\n")
        return cli.EXIT_USER_ERROR
    finally:
        gc.collect()  # models are cycles, and hold encodings of up to gigabytes


class Log(io.TextIOBase):
    """The file that the output of a trial goes to; remembers its last line.

    Attributes:
        last_line: What was said last.
        error: The last error, without the word.
    """

    def __init__(self, file: TextIO):
        self._file = file
        self.last_line = ""
        self.error = ""

    def write(self, text: str) -> int:
        """Writes to the file at once, so that one can follow it."""
        self._file.write(text)
        self._file.flush()
        for line in filter(str.strip, text.splitlines()):
            self.last_line = line.strip()
            if line.startswith("error: "):
                self.error = line.removeprefix("error: ")
        return len(text)


class Board:
    """How far a study is: a live table on a terminal, a line a trial elsewhere.

    Args:
        console: Standard error.
        study: What runs.
        outcomes: Its trials, which change as it goes on.
    """

    def __init__(self, console: Console, study: Study, outcomes: list[Outcome]):
        # A console of its own: the other's output goes to a log while a trial runs.
        self._console = Console(
            file=console.file, highlight=False, soft_wrap=True, markup=False, emoji=False
        )
        self._study = study
        self._outcomes = outcomes
        self._log: Log | None = None
        self._trained_seconds: list[float] = []
        self._live = Live(
            get_renderable=self._draw,
            console=self._console,
            refresh_per_second=2,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> "Board":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    @contextmanager
    def following(self, log: Log) -> Iterator[Log]:
        """Shows the last line of a trial's output while it trains, and takes its time."""
        self._log, start = log, time.monotonic()
        try:
            yield log
        finally:
            self._log = None
            self._trained_seconds.append(time.monotonic() - start)

    def show(self, outcome: Outcome) -> None:
        """Says what became of a trial where there is no live table."""
        if self._console.is_terminal:
            return
        place = self._outcomes.index(outcome) + 1
        said = outcome.reason or f"{self._study.metric} {outcome.value:.4g}"
        self._console.print(
            f"[{place}/{len(self._outcomes)}] {outcome.trial.id}: {outcome.status}, {said}; "
            f"best so far {self._best(self._outcomes)}; {self._time_left()}"
        )

    def _best(self, outcomes: list[Outcome]) -> str:
        done = [outcome for outcome in outcomes if outcome.status == DONE]
        if not done:
            return "none"
        choose = max if self._study.larger_is_better else min
        best = choose(done, key=lambda outcome: outcome.value)
        return f"{best.value:.4g} ({best.trial.configuration})"

    def _time_left(self) -> str:
        waiting = sum(outcome.status == WAITING for outcome in self._outcomes)
        if not waiting:
            return "finished"
        if not self._trained_seconds:
            return "time left unknown"
        mean = sum(self._trained_seconds) / len(self._trained_seconds)
        minutes, seconds = divmod(round(mean * waiting), 60)
        return f"about {minutes} min {seconds} s left"

    def _draw(self) -> Table:
        """A row for each base, so that the table fits below the prompt whatever it varies."""
        counts = Counter(outcome.status for outcome in self._outcomes)
        table = Table(
            title=f"{self._study.name}: {counts[DONE]} of {len(self._outcomes)} trials done, "
            f"{self._time_left()}",
            title_justify="left",
            caption=self._log.last_line[: self._console.width] if self._log else "",
            caption_justify="left",
        )
        for heading in ("base", "done", "failed", f"best {self._study.metric} so far"):
            table.add_column(heading)
        for base in dict.fromkeys(outcome.trial.base for outcome in self._outcomes):
            members = [outcome for outcome in self._outcomes if outcome.trial.base == base]
            status = Counter(outcome.status for outcome in members)
            done = f"{status[DONE]}/{len(members)}"
            table.add_row(base, done, str(status[FAILED]), self._best(members))
        return table


# --- compare --------------------------------------------------------------------------------


def compare(args: argparse.Namespace) -> int:
    """Compares runs; returns the exit code."""
    results = [result for path in args.runs for result in _read_runs(Path(path))]
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
    if args.figures:
        for path in _save_figures(Path(args.figures), _draw_comparison(groups)):
            cli.say(f"Figure: {cli.relative(path)}")
    return 0


def _read_trials(folder: Path) -> dict[str, Any]:
    """What a study has recorded of itself."""
    try:
        return json.loads((folder / TRIALS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            folder, f"must hold a {TRIALS_FILE} that can be read", error, "Run the study again."
        ) from error


def _read_study(folder: Path) -> list[Result]:
    """The trials of a study that are done."""
    return [
        read_result(folder / trial["id"], trial["configuration"], trial["base"])
        for trial in _read_trials(folder)["trials"]
        if trial["status"] == DONE
    ]


def _read_runs(path: Path) -> list[Result]:
    return _read_study(path) if (path / TRIALS_FILE).exists() else [read_result(path)]


def _metric_of(paths: list[str], kind: str) -> str:
    """The metric of the studies if they agree on one, else that of the kind."""
    folders = [Path(path) for path in paths if (Path(path) / TRIALS_FILE).exists()]
    metrics = {_read_trials(folder)["metric"] for folder in folders}
    return metrics.pop() if len(metrics) == 1 else next(iter(METRICS[kind]))


def _best_of(groups: list[Group]) -> Result | None:
    """The run to go on with: of the best configuration the best seed."""
    return groups[0].best if groups else None


def _best_paths(results: list[Result], metric: str) -> list[Path]:
    """The run to keep of each base."""
    bases = dict.fromkeys(result.base for result in results)
    best = [
        _best_of(group_results([r for r in results if r.base == base], metric)) for base in bases
    ]
    return [result.path for result in best if result]


def _best_model(folder: Path, encoder: BestEncoder) -> Path:
    """The model of the best trial of a base in a finished study."""
    if (folder / TRIALS_FILE).exists():
        results = [result for result in _read_study(folder) if result.base == encoder.base]
        for path in _best_paths(results, _read_trials(folder)["metric"]):
            if not (path / "model.keras").exists():
                raise UsageError(
                    path,
                    "must hold the model of the best trial",
                    "none: another was the best before",
                    "Delete that directory and run its study again.",
                )
            return path / "model.keras"
    raise UsageError(
        folder,
        f"must hold a finished study with the base {encoder.base}",
        "none",
        f"Run the study {encoder.study} first, with the same --runs-dir, or a chain of both.",
    )


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
        is_text = key == "name"
        table.add_column(COLUMNS[key], justify="left" if is_text else "right", no_wrap=not is_text)
    for group in rows:
        table.add_row(*(_cell(group.cell(key)) for key in keys))
    _print_table(table)
    found = influences(ranked)
    if found:
        mattered = Table(title=f"Which hyperparameters mattered for {metric}", title_justify="left")
        mattered.add_column("hyperparameter")
        mattered.add_column("mean (sd; configurations) of each value")
        for influence in found:
            mattered.add_row(influence.key, "\n".join(_describe_values(influence.values)))
        _print_table(mattered)
    cli.say(verdict(ranked))


def _print_table(table: Table) -> None:
    # Tables wrap to the terminal; in a file they may be as wide as they are.
    wide = {} if cli.OUT.is_terminal else {"width": 200}
    cli.OUT.print(table, soft_wrap=False, **wide)


def _describe_values(values: dict[str, tuple[int, float, float]]) -> Iterator[str]:
    for text, (count, mean, sd) in values.items():
        yield f"{text}: {mean:.4g} ({'–' if math.isnan(sd) else f'{sd:.2g}'}; {count})"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _draw_comparison(groups: list[Group]) -> dict[str, Any]:
    from visualization import compare_visualization

    known = [group for group in groups if group.values]
    return compare_visualization(
        [result.history for group in known for result in group.results],
        [group.name for group in known],
        [group.values for group in known],
        [group.interval for group in known],
        known[0].metric,
    )


def _draw_best(best: Result, data: Data) -> dict[str, Any]:
    """The best classifier's curves, confusion matrix and labelled images, from its record."""
    import numpy as np

    from visualization import classifier_loss_visualization, classifier_prediction_visualization

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
    with predictions.open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    numbers = np.array(rows, np.float64)  # index, label, prediction, correct, probability, p_...
    targets = encode_labels(numbers[:, 1].astype(np.int64), np.array(metadata["classes"]))
    return figures | classifier_prediction_visualization(
        Scaling(**metadata["scaling"]).apply(shown.images[numbers[:, 0].astype(int)]),
        targets,
        numbers[:, 5:].astype(np.float32),
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
    finally:
        cli.close(figures.values())
    return paths


def _write_table(path: Path, groups: list[Group]) -> None:
    text = io.StringIO(newline="")
    write_csv(groups)(text)
    _write(path, text.getvalue())


def _write(path: Path, text: str) -> None:
    try:
        with replace_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise UsageError(path, "must be writable", error.strerror, "Free space.") from error


if __name__ == "__main__":
    raise SystemExit(main())

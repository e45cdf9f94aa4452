"""Measures how fast training is, in turns with plain Keras and PyTorch, or with another checkout.

    python benchmarks/run.py                      everything
    python benchmarks/run.py --quick              the small autoencoder, about 3 minutes
    python benchmarks/run.py --only evaluation    one task; repeat --only for more
    python benchmarks/run.py --against ../before  this checkout against another one, 8 rounds

The competitors are in competitors.py, and rounds.py lets them take turns. A complete run writes
benchmarks/results.json after each measurement: a document for each kind of processor (`avx2`,
`avx512_bf16`), and the figure docs/images/benchmark-<kind>.png. The `results` of a document have
stable keys (median, min and max over the rounds):

    autoencoder.<size>.b<batch>.vs_keras, .vs_torch, .vs_torch_compile,
        .bf16.vs_keras, .bf16.vs_torch_bf16, .bf16.vs_torch_compile
    frozen_phase.vs_keras, evaluation.vs_keras
        how many times as fast ours is
    answers.<classifier>.vs_keras, .vs_model, .files.vs_keras, .files.vs_model
        the rate of `predict.py classify` on one array and on PNG files, as a multiple of that of
        the same classifier on the images in memory, by Keras' `predict` and by ours
    augmentation.<model>.vs_unchanged
        the rate of training with images changed at random, as a multiple of that without
    startup.help_vs_python, .bad_configuration_vs_python, .bad_study_vs_python
        how many times as long as bare Python a start takes; also in seconds, startup.<what>_seconds
    memory.vs_keras
        our share of their peak memory, both above a process that trains on 256 images
    growth.<images>.seconds.vs_keras, growth.<images>.memory.vs_keras
        the same for an epoch on ever more images: how many times as fast, and our share of memory
"""

import argparse
import functools
import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import results  # noqa: E402
from benchmarks.competitors import PARAMETERS, RECIPE, TASKS, Job  # noqa: E402
from benchmarks.results import Contest  # noqa: E402
from benchmarks.rounds import Round, Worker, interleave  # noqa: E402
from cae import files, terminal  # noqa: E402
from cae.data.datasets import check_dataset, load_dataset  # noqa: E402
from cae.errors import DataError, UsageError  # noqa: E402
from cae.programs import flags, start  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results.json"
FIGURES = ROOT / "docs" / "images"

# One to three seconds per round on 2 cores; multiples of all batch sizes.
ROUND_IMAGES = {"small": 4096, "medium": 2048, "large": 1024}
CLASSIFIER_IMAGES = {"frozen_phase": 6000, "full_phase": 4096}  # against another checkout
BASELINE_IMAGES = 256  # enough to load, build and compile everything, and hardly any data


@dataclass(frozen=True)
class Scope:
    """How much is measured."""

    tasks: tuple[str, ...]  # keys of MEASURES
    sizes: tuple[str, ...] = tuple(PARAMETERS)
    batch_sizes: tuple[int, ...] = (32, 128)
    rounds: int = 8  # of each competitor, after the warm-up
    long_rounds: int = 3  # where a round takes a minute
    frozen_images: int = 60_000  # those for validation included
    evaluated_images: int = 10_000
    growth_images: tuple[int, ...] = (7_500, 15_000, 30_000, 60_000, 120_000, 240_000)


_warn_once = functools.cache(terminal.warn)


def measure_autoencoders(scope: Scope, data: str) -> Iterator[Contest]:
    for size, batch_size in itertools.product(scope.sizes, scope.batch_sizes):
        images = ROUND_IMAGES[size]
        job = Job("autoencoder", "", data, images, scope.rounds + 1, size, batch_size)
        yield _get_speeds(f"autoencoder.{size}.b{batch_size}", job)


def measure_frozen_phase(scope: Scope, data: str) -> Iterator[Contest]:
    job = Job("frozen_phase", "", data, scope.frozen_images, scope.long_rounds + 1)
    yield Contest("frozen_phase", "s", _take_turns(job))


def measure_evaluation(scope: Scope, data: str) -> Iterator[Contest]:
    yield _get_speeds(
        "evaluation", Job("evaluation", "", data, scope.evaluated_images, scope.rounds + 1)
    )


def measure_answers(scope: Scope, data: str) -> Iterator[Contest]:
    for size in ("small", RECIPE):
        job = Job("answers", "", data, scope.evaluated_images, scope.rounds + 1, size)
        yield _get_speeds(f"answers.{size}", job)


def measure_augmentation(scope: Scope, data: str) -> Iterator[Contest]:
    for size in ("small", RECIPE):
        images = ROUND_IMAGES["small"]
        job = Job("augmentation", "", data, images, scope.rounds + 1, size)
        yield _get_speeds(f"augmentation.{size}", job)


def measure_startup(scope: Scope, data: str) -> Iterator[Contest]:
    program = [sys.executable, str(ROOT / "autoencoder.py")]
    wrong = Path(data, "wrong.json")
    wrong.write_text('{"epochs": 0}', encoding="utf-8")
    commands = {  # with their exit codes
        "python": ([sys.executable, "-c", "pass"], 0),
        "help": ([*program, "--help"], 0),
        "bad_configuration": ([*program, "-d", "digits", "-c", str(wrong)], 2),
        "bad_study": ([sys.executable, str(ROOT / "experiments.py"), "run", str(wrong)], 2),
        "import_keras": ([sys.executable, "-c", "import keras"], 0),
    }
    turns = [[time_process(*c) for c in commands.values()] for _ in range(scope.rounds + 1)]
    seconds = zip(commands, zip(*turns[1:], strict=True), strict=True)
    yield Contest("startup", "s", dict(seconds))


def measure_growth(scope: Scope, data: str) -> Iterator[Contest]:
    """Time and memory of an epoch, above those of an epoch on very few images.

    This leaves out what a process needs to start and to compile.
    """
    for images in scope.growth_images:
        seconds, megabytes = {}, {}
        for competitor in ("keras", "ours"):
            least = train_in_fresh_process(competitor, data, BASELINE_IMAGES)
            whole = train_in_fresh_process(competitor, data, images)
            seconds[competitor] = [whole.seconds - least.seconds]
            megabytes[competitor] = [(whole.peak_bytes - least.peak_bytes) / 1e6]
        yield Contest(f"growth.{images}.seconds", "s", seconds)
        yield Contest(f"growth.{images}.memory", "MB", megabytes)
        if images == 60_000:
            yield Contest("memory", "MB", megabytes)


MEASURES: dict[str, Callable[[Scope, str], Iterator[Contest]]] = {
    "autoencoder": measure_autoencoders,
    "frozen_phase": measure_frozen_phase,
    "evaluation": measure_evaluation,
    "answers": measure_answers,
    "augmentation": measure_augmentation,
    "startup": measure_startup,
    "growth": measure_growth,
}
DEFAULT = Scope(tuple(MEASURES))
QUICK = Scope(DEFAULT.tasks[:-1], ("small",), (32,), rounds=4, long_rounds=2, frozen_images=6_000)


def measure_against(checkout: str, rounds: int, data: str) -> Iterator[Contest]:
    """The same work by this checkout and another one: every autoencoder, and both phases."""
    jobs = {
        f"autoencoder.{size}.b32": Job("autoencoder", "ours", data, images, rounds + 1, size)
        for size, images in ROUND_IMAGES.items()
    }
    for task, images in CLASSIFIER_IMAGES.items():
        jobs[task] = Job(task, "ours", data, images, rounds + 1)
    for key, job in jobs.items():
        pair = {"other": replace(job, checkout=str(Path(checkout).resolve())), "ours": job}
        workers = {name: get_worker(f"{name}, {key}", job) for name, job in pair.items()}
        yield Contest(key, "s", interleave(workers, rounds))


def get_worker(name: str, job: Job) -> Worker:
    script = str(ROOT / "benchmarks" / "competitors.py")
    return Worker(name, [sys.executable, script, json.dumps(asdict(job))])


def _take_turns(job: Job) -> dict[str, list[float]]:
    """Seconds of the rounds of all competitors at one task; the job's own is ignored."""
    absent = find_absent(TASKS[job.task])
    for reason in dict.fromkeys(absent.values()):
        _warn_once(reason)
    workers = {
        name: get_worker(f"{name}, {job.task}", replace(job, competitor=name))
        for name in TASKS[job.task]
        if name not in absent
    }
    return interleave(workers, job.rounds - 1)


def _get_speeds(key: str, job: Job) -> Contest:
    rounds = _take_turns(job).items()
    speeds = {name: [job.images / seconds for seconds in values] for name, values in rounds}
    return Contest(key, "images/s", speeds)


def find_absent(names: Iterable[str]) -> dict[str, str]:
    """The competitors that cannot run here, with the reason."""
    has_torch = importlib.util.find_spec("torch") is not None
    has_compiler = shutil.which(os.environ.get("CXX", "c++")) is not None
    has_bfloat16 = results.describe_machine()["has_bfloat16"]
    absent = {}
    for name in names:
        if name.startswith("torch") and not has_torch:
            absent[name] = "No PyTorch to compare with; pip install -r benchmarks/requirements.txt"
        elif name.startswith("torch_compile") and not has_compiler:
            absent[name] = "torch.compile is left out: it needs a C++ compiler"
        elif name.endswith("_bf16") and not has_bfloat16:
            absent[name] = "bfloat16 is left out: this processor reports no instructions for it"
    return absent


def time_process(command: list[str], exit_code: int) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode != exit_code:
        raise AssertionError(f"{command} exited with {done.returncode}: {done.stderr!r}")
    return seconds


@functools.cache
def train_in_fresh_process(competitor: str, data: str, images: int) -> Round:
    job = Job("autoencoder", competitor, data, images, rounds=1)
    with get_worker(f"{competitor}, {images} images", job) as worker:
        return worker.run_round()


def write_data(images: int, folder: str) -> str:
    """Writes what all competitors load, and returns the name of its data set.

    MNIST where it is available, digits otherwise, repeated if there are too few.
    """
    dataset = "mnist"
    try:
        check_dataset(dataset)
    except DataError as error:
        dataset = "digits"
        terminal.warn(f"MNIST is not available, measuring on digits, repeated ({error})")
    data = load_dataset(dataset)
    np.save(Path(folder, "images.npy"), np.resize(data.images, (images, *data.images.shape[1:])))
    np.save(Path(folder, "labels.npy"), np.resize(data.labels, images))
    return dataset


def get_scope(args: argparse.Namespace) -> Scope:
    scope = QUICK if args.quick else DEFAULT
    if args.rounds:
        scope = replace(scope, rounds=args.rounds, long_rounds=args.rounds)
    return replace(scope, tasks=tuple(dict.fromkeys(args.only))) if args.only else scope


def measure(args: argparse.Namespace) -> int:
    """Measures and prints the table; writes what a complete run, or --save, has measured so far."""
    scope, is_complete = get_scope(args), not (args.quick or args.only or args.against)
    if args.against and not Path(args.against, "model.py").is_file():
        raise UsageError("--against", "must be a checkout of this repository", args.against)
    measurements: list[Contest] = []

    def save(keep_others: bool) -> list[Path]:
        facts = {"command": args.command, "dataset": dataset, "plan": asdict(scope)}
        return _write(results.get_document(measurements, **facts), keep_others)

    with tempfile.TemporaryDirectory() as data:
        dataset = write_data(max(60_000, *scope.growth_images), data)
        if args.against:
            measured = measure_against(args.against, scope.rounds, data)
        else:
            measured = (found for task in scope.tasks for found in MEASURES[task](scope, data))
        for measurement in measured:
            terminal.ERR.print(measurement.key)
            measurements.append(measurement)
            if is_complete or args.save:
                save(keep_others=True)  # an interruption costs only what comes after
    machine = results.describe_machine()
    instructions = ", ".join(machine["instructions"]) or "instructions unknown"
    terminal.say(f"Images: {dataset}. Processor: {machine['processor']} ({instructions}).")
    terminal.OUT.print(results.make_table(measurements))
    if is_complete or args.save:
        written = save(keep_others=not is_complete)
        terminal.say(f"Results: {', '.join(terminal.relative(path) for path in written)}")
    return 0


def _write(document: dict, keep_others: bool) -> list[Path]:
    """Replaces the document of this kind of processor; returns the files.

    `keep_others` keeps its other measurements.
    """
    documents = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    kind = document["machine"]["kind"]
    if keep_others and kind in documents:
        earlier = documents[kind]
        document |= {part: earlier[part] | document[part] for part in ("results", "measurements")}
    files.write_json(RESULTS, documents | {kind: document})
    written = [RESULTS]
    if figure := results.plot_speeds(document["measurements"]):
        written.append(FIGURES / f"benchmark-{kind}.png")
        files.write_figure(written[-1], figure)
    return written


def build_parser() -> flags.Parser:
    parser = flags.Parser(prog="run.py", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="the small autoencoder with fewer images and rounds"
    )
    only = f"measure only this: {', '.join(MEASURES)}; repeatable"
    parser.add_argument("--only", action="append", choices=MEASURES, metavar="TASK", help=only)
    parser.add_argument("--against", metavar="CHECKOUT", help="compare with another one instead")
    rounds = flags.number(1, 1000, "rounds of every competitor, after the warm-up")
    parser.add_argument("--rounds", **rounds)
    parser.add_argument(
        "--save", action="store_true", help="write results and figure after a part, too"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    return start.run(measure, build_parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())

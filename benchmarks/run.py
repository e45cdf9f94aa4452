"""How fast training is, beside what people would write themselves, measured side by side.

    python benchmarks/run.py                      everything
    python benchmarks/run.py --quick              the small autoencoder, about 3 minutes
    python benchmarks/run.py --only evaluation    one task; repeat --only for more
    python benchmarks/run.py --only autoencoder.large.b32

Competitors are in workers.py, how they take turns in rounds.py. A complete run writes
benchmarks/results.json, whose `results` have stable keys (median, min and max over the rounds),
and docs/images/benchmark.png:

    autoencoder.<size>.b<batch>.vs_keras, .vs_torch, .bf16.vs_keras, .bf16.vs_torch_bf16
    frozen_phase.vs_keras, evaluation.vs_keras
        how many times as fast as the other one we are
    startup.help_seconds, startup.bad_configuration_seconds, startup.import_keras_seconds
    memory.vs_keras
        our part of their peak memory, both above a process that trains on 256 images
    growth.<images>.seconds.vs_keras, growth.<images>.memory.vs_keras
        the same for an epoch on ever more images: as fast as, and our part of the memory
"""

import argparse
import functools
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import report  # noqa: E402
from benchmarks.report import Measurement  # noqa: E402
from benchmarks.rounds import Round, Worker, interleave  # noqa: E402
from benchmarks.workers import TASKS, Job  # noqa: E402
from cae import (
    files,  # noqa: E402
    terminal,  # noqa: E402
)
from cae.data.datasets import check_dataset  # noqa: E402
from cae.errors import DataError  # noqa: E402
from cae.programs import flags
from cae.programs import start as start_module

RESULTS = ROOT / "benchmarks" / "results.json"
FIGURE = ROOT / "docs" / "images" / "benchmark.png"

# One to three seconds for each round on 2 cores; multiples of all batch sizes.
ROUND_IMAGES = {"small": 4096, "medium": 2048, "large": 1024}
BASELINE_IMAGES = 256  # enough to load, build and compile everything, and hardly any data
PROGRAM = [sys.executable, str(ROOT / "autoencoder.py")]
STARTUP_TIMEOUT = 120  # seconds


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        tasks: Keys of `MEASURES`.
        only: Of the autoencoders, those with these keys; all without them.
        sizes: Autoencoders.
        batch_sizes: Of their training.
        rounds: For each competitor, after one to warm up.
        long_rounds: The same where a round takes a minute.
        frozen_images: Images of the frozen phase, those for validation included.
        evaluated_images: Images of the evaluation.
        memory_images: Images trained on to measure memory.
        growth_images: The same to see how it grows.
    """

    tasks: tuple[str, ...]
    only: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ("small", "medium", "large")
    batch_sizes: tuple[int, ...] = (32, 128)
    rounds: int = 8
    long_rounds: int = 3
    frozen_images: int = 60_000
    evaluated_images: int = 10_000
    memory_images: int = 60_000
    growth_images: tuple[int, ...] = (7_500, 15_000, 30_000, 60_000)


def measure_autoencoders(plan: Plan, dataset: str) -> Iterator[Measurement]:
    for size in plan.sizes:
        for batch_size in plan.batch_sizes:
            key = f"autoencoder.{size}.b{batch_size}"
            if plan.only and key not in plan.only:
                continue
            images = ROUND_IMAGES[size]
            job = Job("autoencoder", "", dataset, images, plan.rounds + 1, size, batch_size)
            yield Measurement(key, "images/s", _get_speeds(_take_turns(job), images))


def measure_frozen_phase(plan: Plan, dataset: str) -> Iterator[Measurement]:
    job = Job("frozen_phase", "", dataset, plan.frozen_images, plan.long_rounds + 1)
    yield Measurement("frozen_phase", "s", _take_turns(job))


def measure_evaluation(plan: Plan, dataset: str) -> Iterator[Measurement]:
    images = plan.evaluated_images
    job = Job("evaluation", "", dataset, images, plan.rounds + 1)
    yield Measurement("evaluation", "images/s", _get_speeds(_take_turns(job), images))


def measure_startup(plan: Plan, dataset: str) -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory() as folder:
        wrong = Path(folder) / "wrong.json"
        wrong.write_text('{"epochs": 0}', encoding="utf-8")
        commands = {
            "help": ([*PROGRAM, "--help"], 0),
            "bad_configuration": (
                [*PROGRAM, "-d", dataset, "-c", str(wrong)],
                terminal.EXIT_USER_ERROR,
            ),
            "import_keras": ([sys.executable, "-c", "import keras"], 0),
        }
        rounds = [
            {name: _time_process(*command) for name, command in commands.items()}
            for _ in range(plan.rounds + 1)
        ]
    seconds = {name: [turn[name] for turn in rounds[1:]] for name in commands}
    yield Measurement("startup", "s", seconds)


def measure_memory(plan: Plan, dataset: str) -> Iterator[Measurement]:
    _, memory = _measure_epoch(dataset, plan.memory_images)
    yield replace(memory, key="memory")


def measure_growth(plan: Plan, dataset: str) -> Iterator[Measurement]:
    for images in plan.growth_images:
        yield from _measure_epoch(dataset, images)


MEASURES: dict[str, Callable[[Plan, str], Iterator[Measurement]]] = {
    "autoencoder": measure_autoencoders,
    "frozen_phase": measure_frozen_phase,
    "evaluation": measure_evaluation,
    "startup": measure_startup,
    "memory": measure_memory,
    "growth": measure_growth,
}
DEFAULT = Plan(tuple(MEASURES))
QUICK = Plan(
    ("autoencoder", "frozen_phase", "evaluation", "startup"),
    sizes=("small",),
    batch_sizes=(32,),
    rounds=4,
    long_rounds=2,
    frozen_images=6_000,
    memory_images=15_000,
    growth_images=(3_750, 7_500),
)
MORE_GROWTH = (120_000, 240_000)
AUTOENCODERS = tuple(
    f"autoencoder.{size}.b{batch_size}"
    for size in DEFAULT.sizes
    for batch_size in DEFAULT.batch_sizes
)


def _get_command(job: Job) -> list[str]:
    return [sys.executable, str(ROOT / "benchmarks" / "workers.py"), json.dumps(asdict(job))]


def _take_turns(job: Job) -> dict[str, list[float]]:
    """Seconds of the rounds of all competitors at one task; the job's own is not looked at."""
    names = [name for name in TASKS[job.task] if _has_torch() or not name.startswith("torch")]
    jobs = {name: replace(job, competitor=name) for name in names}
    workers = {name: Worker(f"{name}, {job.task}", _get_command(job)) for name, job in jobs.items()}
    return interleave(workers, job.rounds - 1)


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def _get_speeds(seconds: dict[str, list[float]], images: int) -> dict[str, list[float]]:
    return {name: [images / value for value in values] for name, values in seconds.items()}


def _time_process(command: list[str], exit_code: int) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, timeout=STARTUP_TIMEOUT, check=False)
    seconds = time.perf_counter() - start
    if done.returncode != exit_code:
        raise AssertionError(f"{command} exited with {done.returncode}: {done.stderr!r}")
    return seconds


def _measure_epoch(dataset: str, images: int) -> tuple[Measurement, Measurement]:
    """Time and memory of an epoch, above those of an epoch on next to no images.

    What a process needs to start and to compile is thus left out.
    """
    seconds, megabytes = {}, {}
    for competitor in ("keras", "ours"):
        start = _train_in_fresh_process(competitor, dataset, BASELINE_IMAGES)
        whole = _train_in_fresh_process(competitor, dataset, images)
        seconds[competitor] = [whole.seconds - start.seconds]
        megabytes[competitor] = [(whole.peak_bytes - start.peak_bytes) / 1e6]
    return (
        Measurement(f"growth.{images}.seconds", "s", seconds),
        Measurement(f"growth.{images}.memory", "MB", megabytes),
    )


@functools.cache
def _train_in_fresh_process(competitor: str, dataset: str, images: int) -> Round:
    job = Job("autoencoder", competitor, dataset, images, rounds=1)
    with Worker(f"{competitor}, {images} images", _get_command(job)) as worker:
        return worker.run_round()


def choose_dataset() -> str:
    """MNIST where it can be had, digits repeated elsewhere."""
    try:
        check_dataset("mnist")
    except DataError as error:
        terminal.warn(f"Measuring on digits, repeated, because there is no MNIST ({error})")
        check_dataset("digits")
        return "digits"
    return "mnist"


def get_plan(args: argparse.Namespace) -> Plan:
    """What the flags ask for."""
    plan = QUICK if args.quick else DEFAULT
    if args.full:
        plan = replace(plan, growth_images=(*plan.growth_images, *MORE_GROWTH))
    if args.rounds:
        plan = replace(plan, rounds=args.rounds, long_rounds=args.rounds)
    if args.only:
        tasks = tuple(dict.fromkeys(key.partition(".")[0] for key in args.only))
        only = () if "autoencoder" in args.only else tuple(set(args.only) & set(AUTOENCODERS))
        plan = replace(plan, tasks=tasks, only=only)
    return plan


def get_destinations(args: argparse.Namespace) -> tuple[Path, Path] | None:
    """Files of the results and of the figure; None where part of everything is only printed."""
    if args.output is None:
        return None if args.quick or args.only else (RESULTS, FIGURE)
    path = report.check_destination(args.output)
    return path, path.with_suffix(".png")


def measure(args: argparse.Namespace) -> int:
    """Measures, prints the table, and writes the files once everything is known."""
    plan = get_plan(args)
    destinations = get_destinations(args)
    dataset = choose_dataset()
    if not _has_torch():
        terminal.warn("No PyTorch to compare with; pip install -r benchmarks/requirements.txt")
    measurements = []
    for task in plan.tasks:
        for measurement in MEASURES[task](plan, dataset):
            terminal.ERR.print(measurement.key)
            measurements.append(measurement)
    terminal.say(f"Images: {dataset}. Processor: {report.describe_machine()['processor']}.")
    report.print_table(measurements, terminal.OUT)
    if destinations:
        document = report.get_document(
            measurements, command=args.command, dataset=dataset, plan=asdict(plan)
        )
        if args.only:
            document = report.add_to_document(destinations[0], document)
        _write(document, *destinations)
    return 0


def _write(document: dict, results_path: Path, figure_path: Path) -> None:
    report.write_json(results_path, document)
    terminal.say(f"Results: {terminal.relative(results_path)}")
    measurements = report.get_measurements(document)
    if any(measurement.key.startswith("autoencoder.") for measurement in measurements):
        machine = document["machine"]
        title = f"Training autoencoders: {machine['processor']}, {machine['threads']} threads"
        figure = report.plot_speeds(measurements, title)
        with files.replace_file(figure_path) as file:
            figure.savefig(file, format="png")
        terminal.say(f"Figure: {terminal.relative(figure_path)}")


def build_parser() -> flags.Parser:
    """The flags."""
    parser = flags.Parser(prog="run.py", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="the small autoencoder with fewer images and rounds"
    )
    parser.add_argument(
        "--full", action="store_true", help="let growth go on to 240,000 images (6 minutes more)"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=(*MEASURES, *AUTOENCODERS),
        default=[],
        metavar="TASK",
        help=f"measure this alone: {', '.join(MEASURES)}, or one of the autoencoders, such as "
        f"{AUTOENCODERS[0]}; repeat it for more",
    )
    parser.add_argument(
        "--rounds",
        type=flags.whole_number(1, 1000),
        metavar="N",
        help="rounds of every competitor, after one to warm up",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write the results here and the figure beside it; with --only they replace those of "
        "the same key in the file (default: benchmarks/results.json of a complete run, nowhere "
        "with --quick or --only)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the program and returns its exit code."""
    return start_module.run(measure, build_parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())

"""Measures how fast training is, in turns with plain Keras and PyTorch, or with another checkout.

    python benchmarks/run.py                      everything
    python benchmarks/run.py --quick              the small autoencoder, about 3 minutes
    python benchmarks/run.py --only evaluation    one task; repeat --only for more
    python benchmarks/run.py --against ../before  this checkout against another one, 8 rounds

The competitors are in competitors.py, and rounds.py lets them take turns. A complete run writes
benchmarks/results.json, whose `results` have stable keys (median, min and max over the rounds),
and docs/images/benchmark.png:

    autoencoder.<size>.b<batch>.vs_keras, .vs_torch, .bf16.vs_keras, .bf16.vs_torch_bf16
    frozen_phase.vs_keras, evaluation.vs_keras
        how many times as fast ours is
    startup.help_seconds, startup.bad_configuration_seconds, startup.import_keras_seconds
    memory.vs_keras
        our share of their peak memory, both above a process that trains on 256 images
    growth.<images>.seconds.vs_keras, growth.<images>.memory.vs_keras
        the same for an epoch on ever more images: how many times as fast, and our share of memory
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

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import results  # noqa: E402
from benchmarks.competitors import TASKS, Job  # noqa: E402
from benchmarks.results import SIZES, Measurement  # noqa: E402
from benchmarks.rounds import Round, Worker, interleave  # noqa: E402
from cae import files, terminal  # noqa: E402
from cae.data.datasets import check_dataset, load_dataset  # noqa: E402
from cae.errors import DataError, UsageError  # noqa: E402
from cae.programs import flags, start  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results.json"
FIGURE = ROOT / "docs" / "images" / "benchmark.png"

# One to three seconds per round on 2 cores; multiples of all batch sizes.
ROUND_IMAGES = {"small": 4096, "medium": 2048, "large": 1024}
CLASSIFIER_IMAGES = {"frozen_phase": 6000, "full_phase": 4096}  # against another checkout
BASELINE_IMAGES = 256  # enough to load, build and compile everything, and hardly any data
STARTUP_TIMEOUT = 120  # seconds


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        tasks: Keys of `MEASURES`.
        sizes: Autoencoders.
        batch_sizes: Of their training.
        rounds: Of each competitor, after the warm-up.
        long_rounds: The same where a round takes a minute.
        frozen_images: Images of the frozen phase, those for validation included.
        evaluated_images: Images of the evaluation.
        memory_images: Images trained on to measure memory.
        growth_images: The same to see how it grows.
    """

    tasks: tuple[str, ...]
    sizes: tuple[str, ...] = SIZES
    batch_sizes: tuple[int, ...] = (32, 128)
    rounds: int = 8
    long_rounds: int = 3
    frozen_images: int = 60_000
    evaluated_images: int = 10_000
    memory_images: int = 60_000
    growth_images: tuple[int, ...] = (7_500, 15_000, 30_000, 60_000)


def measure_autoencoders(plan: Plan, data: str) -> Iterator[Measurement]:
    for size in plan.sizes:
        for batch_size in plan.batch_sizes:
            images = ROUND_IMAGES[size]
            job = Job("autoencoder", "", data, images, plan.rounds + 1, size, batch_size)
            speeds = _get_speeds(_take_turns(job), images)
            yield Measurement(f"autoencoder.{size}.b{batch_size}", "images/s", speeds)


def measure_frozen_phase(plan: Plan, data: str) -> Iterator[Measurement]:
    job = Job("frozen_phase", "", data, plan.frozen_images, plan.long_rounds + 1)
    yield Measurement("frozen_phase", "s", _take_turns(job))


def measure_evaluation(plan: Plan, data: str) -> Iterator[Measurement]:
    job = Job("evaluation", "", data, plan.evaluated_images, plan.rounds + 1)
    speeds = _get_speeds(_take_turns(job), plan.evaluated_images)
    yield Measurement("evaluation", "images/s", speeds)


def measure_startup(plan: Plan, data: str) -> Iterator[Measurement]:
    program = [sys.executable, str(ROOT / "autoencoder.py")]
    with tempfile.TemporaryDirectory() as folder:
        wrong = Path(folder, "wrong.json")
        wrong.write_text('{"epochs": 0}', encoding="utf-8")
        commands = {  # with their exit codes
            "help": ([*program, "--help"], 0),
            "bad_configuration": ([*program, "-d", "digits", "-c", str(wrong)], 2),
            "import_keras": ([sys.executable, "-c", "import keras"], 0),
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(plan.rounds + 1):
            for name, command in commands.items():
                seconds[name].append(_time_process(*command))
    yield Measurement("startup", "s", {name: values[1:] for name, values in seconds.items()})


def measure_memory(plan: Plan, data: str) -> Iterator[Measurement]:
    _, memory = _measure_epoch(data, plan.memory_images)
    yield replace(memory, key="memory")


def measure_growth(plan: Plan, data: str) -> Iterator[Measurement]:
    for images in plan.growth_images:
        yield from _measure_epoch(data, images)


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


def measure_against(checkout: str, rounds: int, data: str) -> Iterator[Measurement]:
    """The same work by this checkout and another one: every autoencoder, and both phases."""
    jobs = {
        f"autoencoder.{size}.b32": Job("autoencoder", "ours", data, images, rounds + 1, size)
        for size, images in ROUND_IMAGES.items()
    }
    for task, images in CLASSIFIER_IMAGES.items():
        jobs[task] = Job(task, "ours", data, images, rounds + 1)
    for key, job in jobs.items():
        pair = {"other": replace(job, checkout=str(Path(checkout).resolve())), "ours": job}
        workers = {name: _get_worker(f"{name}, {key}", job) for name, job in pair.items()}
        yield Measurement(key, "s", interleave(workers, rounds))


def _get_worker(name: str, job: Job) -> Worker:
    script = str(ROOT / "benchmarks" / "competitors.py")
    return Worker(name, [sys.executable, script, json.dumps(asdict(job))])


def _take_turns(job: Job) -> dict[str, list[float]]:
    """Seconds of the rounds of all competitors at one task; the job's own is ignored."""
    names = [name for name in TASKS[job.task] if _has_torch() or not name.startswith("torch")]
    workers = {
        name: _get_worker(f"{name}, {job.task}", replace(job, competitor=name)) for name in names
    }
    return interleave(workers, job.rounds - 1)


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def _get_speeds(seconds: dict[str, list[float]], images: int) -> dict[str, list[float]]:
    return {name: [images / value for value in values] for name, values in seconds.items()}


def _time_process(command: list[str], exit_code: int) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, timeout=STARTUP_TIMEOUT, check=False)
    seconds = time.perf_counter() - began
    if done.returncode != exit_code:
        raise AssertionError(f"{command} exited with {done.returncode}: {done.stderr!r}")
    return seconds


def _measure_epoch(data: str, images: int) -> tuple[Measurement, Measurement]:
    """Time and memory of an epoch, above those of an epoch on very few images.

    This leaves out what a process needs to start and to compile.
    """
    seconds, megabytes = {}, {}
    for competitor in ("keras", "ours"):
        least = _train_in_fresh_process(competitor, data, BASELINE_IMAGES)
        whole = _train_in_fresh_process(competitor, data, images)
        seconds[competitor] = [whole.seconds - least.seconds]
        megabytes[competitor] = [(whole.peak_bytes - least.peak_bytes) / 1e6]
    return (
        Measurement(f"growth.{images}.seconds", "s", seconds),
        Measurement(f"growth.{images}.memory", "MB", megabytes),
    )


@functools.cache
def _train_in_fresh_process(competitor: str, data: str, images: int) -> Round:
    job = Job("autoencoder", competitor, data, images, rounds=1)
    with _get_worker(f"{competitor}, {images} images", job) as worker:
        return worker.run_round()


def choose_dataset() -> str:
    """MNIST where it is available, digits otherwise."""
    try:
        check_dataset("mnist")
    except DataError as error:
        terminal.warn(f"MNIST is not available, measuring on digits, repeated ({error})")
        return "digits"
    return "mnist"


def write_data(dataset: str, images: int, folder: str) -> None:
    """Writes what all competitors load: a data set's images and labels, repeated if too few."""
    data = load_dataset(dataset, limit=min(images, 60_000))
    shape = (images, *data.images.shape[1:])
    np.save(Path(folder, "images.npy"), np.resize(data.images, shape))
    np.save(Path(folder, "labels.npy"), np.resize(data.labels, images))


def get_plan(args: argparse.Namespace) -> Plan:
    plan = QUICK if args.quick else DEFAULT
    if args.full:
        plan = replace(plan, growth_images=(*plan.growth_images, *MORE_GROWTH))
    if args.rounds:
        plan = replace(plan, rounds=args.rounds, long_rounds=args.rounds)
    if args.only:
        plan = replace(plan, tasks=tuple(dict.fromkeys(args.only)))
    return plan


def get_destinations(args: argparse.Namespace) -> tuple[Path, Path] | None:
    """Files of the results and of the figure; None if the results are only printed."""
    if args.output is None:
        return None if args.quick or args.only or args.against else (RESULTS, FIGURE)
    path = results.check_destination(args.output)
    return path, path.with_suffix(".png")


def measure(args: argparse.Namespace) -> int:
    """Measures, prints the table, and writes the files at the end."""
    plan, destinations = get_plan(args), get_destinations(args)
    if args.against and not Path(args.against, "model.py").is_file():
        raise UsageError("--against", "must be a checkout of this repository", args.against)
    dataset = choose_dataset()
    if not (args.against or _has_torch()):
        terminal.warn("No PyTorch to compare with; pip install -r benchmarks/requirements.txt")
    measurements = []
    with tempfile.TemporaryDirectory() as data:
        write_data(dataset, max(60_000, *plan.growth_images), data)
        if args.against:
            measured = measure_against(args.against, plan.rounds, data)
        else:
            measured = (found for task in plan.tasks for found in MEASURES[task](plan, data))
        for measurement in measured:
            terminal.ERR.print(measurement.key)
            measurements.append(measurement)
    machine = results.describe_machine()
    instructions = ", ".join(machine["instructions"]) or "instructions unknown"
    terminal.say(f"Images: {dataset}. Processor: {machine['processor']} ({instructions}).")
    terminal.OUT.print(results.make_table(measurements))
    if args.against:
        for measurement in measurements:
            _say_ratio(measurement)
    if destinations:
        document = results.get_document(
            measurements, command=args.command, dataset=dataset, plan=asdict(plan)
        )
        _write(
            results.merge_into(destinations[0], document) if args.only else document, *destinations
        )
    return 0


def _say_ratio(measurement: Measurement) -> None:
    (ratio,) = measurement.compare().values()
    fastest = min(measurement.values["other"]) / min(measurement.values["ours"])
    terminal.say(
        f"{measurement.key}: {ratio['median']:.3f} times as fast as the other checkout "
        f"({ratio['min']:.3f} to {ratio['max']:.3f}; fastest rounds {fastest:.3f})"
    )


def _write(document: dict, results_path: Path, figure_path: Path) -> None:
    files.write_json(results_path, document)
    terminal.say(f"Results: {terminal.relative(results_path)}")
    measurements = results.get_measurements(document)
    drawn = [m for m in measurements if m.key.startswith("autoencoder.") and "keras" in m.values]
    if drawn:
        machine = document["machine"]
        title = f"Training autoencoders: {machine['processor']}, {machine['threads']} threads"
        files.write_figure(figure_path, results.plot_speeds(drawn, title))
        terminal.say(f"Figure: {terminal.relative(figure_path)}")


def build_parser() -> flags.Parser:
    parser = flags.Parser(prog="run.py", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="the small autoencoder with fewer images and rounds"
    )
    parser.add_argument(
        "--full", action="store_true", help="let growth continue to 240,000 images (6 minutes more)"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=MEASURES,
        default=[],
        metavar="TASK",
        help=f"measure only this: {', '.join(MEASURES)}; repeatable",
    )
    parser.add_argument(
        "--against",
        metavar="CHECKOUT",
        help="compare this checkout of the repository with another one instead",
    )
    parser.add_argument(
        "--rounds",
        type=flags.whole_number(1, 1000),
        metavar="N",
        help="rounds of every competitor, after the warm-up",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write the results to this file and the figure beside it; with --only they replace "
        "those of the same key in the file (default: benchmarks/results.json of a complete run, "
        "none otherwise)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    return start.run(measure, build_parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())

"""The arithmetic, keys and files of benchmarks/, without measuring anything."""

import io
import json
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from benchmarks import gpu, profile_step, report, run, workers
from benchmarks.report import Measurement
from benchmarks.rounds import Round, Worker, get_ratios, get_spread, interleave
from cae.config.load import validate_config
from cae.data.splits import split_validation
from cae.errors import UserError

ROOT = Path(__file__).parent.parent
SIZES = ("small", "medium", "large")
SPREAD = {
    "type": "object",
    "properties": {name: {"type": "number"} for name in ("median", "min", "max")},
    "required": ["median", "min", "max"],
}
SCHEMA = {
    "type": "object",
    "required": ["date", "machine", "versions", "command", "dataset", "plan", "results"],
    "properties": {
        "date": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT.*\+00:00$"},
        "machine": {"required": ["processor", "cores", "threads", "memory_bytes", "platform"]},
        "versions": {"required": ["python", "keras", "numpy", "tensorflow", "torch"]},
        "dataset": {"enum": ["mnist", "digits"]},
        "plan": {"required": ["tasks", "rounds", "long_rounds"]},
        "results": {"additionalProperties": SPREAD},
        "measurements": {
            "additionalProperties": {
                "required": ["date", "unit", "competitors"],
                "properties": {
                    "unit": {"enum": ["images/s", "s", "MB"]},
                    "competitors": {
                        "additionalProperties": {
                            **SPREAD,
                            "required": ["median", "min", "max", "rounds"],
                        }
                    },
                },
            }
        },
    },
}
SPEEDS = {"keras": [10.0, 20.0], "torch": [5.0, 40.0], "ours": [30.0, 40.0]}


def speeds_with_bfloat16():
    return {**SPEEDS, "torch_bf16": [20.0, 20.0], "ours_bf16": [40.0, 60.0]}


# Arithmetic


def test_spread():
    """The median of an even number of values lies between the two in the middle."""
    assert get_spread([4.0, 1.0, 3.0, 10.0]) == {"median": 3.5, "min": 1.0, "max": 10.0}


def test_ratios_pair_rounds():
    """Rounds are compared before the median is taken: medians would give 4 / 2 here."""
    assert get_ratios([1.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert get_ratios([1.0, 4.0, 4.0], [4.0, 1.0, 2.0])["median"] == 2.0
    with pytest.raises(ValueError, match="shorter"):
        get_ratios([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("unit", "median"), [("images/s", 2.5), ("s", (10 / 30 + 20 / 40) / 2), ("MB", 2.5)]
)
def test_direction_of_ratios(unit, median):
    """Above 1 is faster for speeds and times; of memory it is our part of theirs."""
    (key, spread), _ = Measurement("work", unit, SPEEDS).compare().items()
    assert key == "work.vs_keras"
    assert spread["median"] == pytest.approx(median)


def test_bfloat16_is_compared_with_bfloat16():
    """And with plain Keras, which has nothing else."""
    results = Measurement("work", "images/s", speeds_with_bfloat16()).compare()
    assert {key: spread["median"] for key, spread in results.items()} == {
        "work.vs_keras": 2.5,
        "work.vs_torch": 3.5,
        "work.bf16.vs_keras": 3.5,
        "work.bf16.vs_torch_bf16": 2.5,
    }


# Turns


class FakeWorker:
    def __init__(self, name, turns):
        self.name, self.turns, self.seconds = name, turns, iter([100.0, 1.0, 2.0])

    def __enter__(self):
        self.turns.append(f"start {self.name}")
        return self

    def __exit__(self, *_):
        self.turns.append(f"end {self.name}")

    def run_round(self):
        self.turns.append(self.name)
        return Round(next(self.seconds), 0)


def test_competitors_take_turns():
    """Each starts and warms up before the next one starts; the warm-up does not count."""
    turns = []
    seconds = interleave({name: FakeWorker(name, turns) for name in "ab"}, rounds=2)
    assert seconds == {"a": [1.0, 2.0], "b": [1.0, 2.0]}
    assert turns == [*("start a", "a", "start b", "b"), *"abab", *("end b", "end a")]


def child(code):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"
    return [sys.executable, "-c", code]


def test_worker_answers_when_told():
    """What the child prints is no answer, and its seconds are those of the round."""
    code = """
import time
from benchmarks.rounds import Driver
driver = Driver()
for _ in range(2):
    driver.wait()
    print("loading")
    time.sleep(0.02)
    driver.answer()
"""
    with Worker("child", child(code)) as worker:
        rounds = [worker.run_round(), worker.run_round()]
    assert all(0.02 <= answer.seconds < 5 for answer in rounds)
    assert all(1e6 < answer.peak_bytes < 1e9 for answer in rounds)


@pytest.mark.skipif(sys.platform != "linux", reason="mlockall is asked of Linux")
def test_workers_keep_their_memory():
    """What a worker has loaded stays in memory while it waits, where the system lets it."""
    code = (
        "import resource; from benchmarks.rounds import keep_memory; keep_memory();"
        "status = open('/proc/self/status').read();"
        "print(status.split('VmLck:')[1].split()[0],"
        " *resource.getrlimit(resource.RLIMIT_MEMLOCK))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    locked, limit, _ = map(int, found.stdout.split())
    assert (locked > 0) or limit != resource.RLIM_INFINITY


def test_worker_that_fails():
    """The last line it said is in the one line of the error."""
    with (
        Worker("child", child("raise SystemExit('no memory')")) as worker,
        pytest.raises(UserError, match=r"^child: .* got exit code 1 \(no memory\)\. To see"),
    ):
        worker.run_round()


def test_worker_without_driver_ends():
    """End of input is an end, never a loop."""
    code = "from benchmarks.rounds import Driver\nDriver().wait()"
    done = subprocess.run(
        child(code), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "the driver has gone" in done.stderr


# What is compared is the same


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        # Kernels (height · width · inputs + 1) · filters, the output convolution last.
        ("small", 320 + 18_496 + 36_928 + 18_464 + 289),
        ("medium", 320 + 18_496 + 73_856 + 147_584 + 73_792 + 18_464 + 289),
        (
            "large",
            (320 + 18_496 + 73_856 + 295_168) + (590_080 + 295_040 + 73_792 + 18_464 + 289),
        ),
    ],
)
def test_parameters(size, parameters):
    """What every competitor checks its own model against."""
    assert workers.count_parameters(workers.get_config(size), channels=1) == parameters


@pytest.mark.parametrize("size", SIZES)
def test_plain_autoencoder_is_ours(size):
    """With the same weights, the textbook model draws what ours draws."""
    from cae.training import build

    config = workers.get_config(size)
    images = np.random.default_rng(0).random((2, 12, 12, 1), dtype=np.float32)
    ours = build.get_autoencoder(config, images.shape[1:])
    plain = workers.get_plain_autoencoder(config, images.shape[1:])
    plain.set_weights(ours.get_weights())
    np.testing.assert_allclose(plain(images), ours(images), atol=1e-6)


def test_plain_classifier_is_ours():
    """The same, of the classifier; only its head is trained."""
    from cae.training import build

    job = workers.Job("frozen_phase", "keras", "mnist", 64, 2)
    images = np.random.default_rng(0).random((2, 12, 12, 1), dtype=np.float32)
    shape = images.shape[1:]
    autoencoder = build.get_autoencoder(job.autoencoder, shape)
    ours = build.get_classifier(job.classifier, shape, workers.NUM_CLASSES, encoder=autoencoder)
    plain = workers.get_plain_classifier(job.autoencoder, job.classifier, shape)
    assert len(plain.trainable_weights) == len(ours.get_layer("fully_connected").weights) == 6
    # Keras lists the weights that are trained first, ours those of the encoder.
    plain.layers[0].set_weights(ours.get_layer("encoder").get_weights())
    for layer, like in zip(
        plain.layers[1:], ours.get_layer("fully_connected").layers[1:], strict=True
    ):
        layer.set_weights(like.get_weights())
    np.testing.assert_allclose(plain(images), ours(images), atol=1e-6)


def test_wrong_architecture_is_refused():
    """A competitor with other weights stops instead of being measured."""
    with pytest.raises(AssertionError, match="74497 parameters expected, 1 found"):
        workers._check_parameters(1, workers.get_config("small"), 1)


def test_jobs_differ_in_precision_alone():
    """Everybody trains on all images, with the same batches and epochs."""
    job = workers.Job("autoencoder", "ours", "mnist", 64, 9, "medium", 128)
    low = workers.Job("autoencoder", "ours_bf16", "mnist", 64, 9, "medium", 128)
    config = job.autoencoder
    assert (config.batch_size, config.epochs, config.validation_split) == (128, 9, 0)
    assert (config.mixed_precision, low.autoencoder.mixed_precision) == (False, True)
    assert low.autoencoder.model_copy(update={"mixed_precision": False}) == config


def test_frozen_phase_validates_on_a_sixth():
    """10,000 of 60,000, at a constant rate, and the second phase is left out."""
    config = workers.Job("frozen_phase", "ours", "mnist", 60_000, 2).classifier
    assert (config.dense_only_train_epochs, config.full_train_epochs) == (10, 0)
    assert config.learning_rate_schedule is None
    labels = np.arange(60_000) % 10
    training, validation = split_validation(60_000, config.validation_split, 0, labels)
    assert (len(training), len(validation)) == (50_000, 10_000)


def test_few_images_are_repeated(monkeypatch):
    """With their labels, in order."""
    data = SimpleNamespace(
        images=np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1) * 85, labels=np.arange(3)
    )
    monkeypatch.setattr(workers, "load_dataset", lambda name, limit: data)
    job = workers.Job("autoencoder", "keras", "digits", 7, 1)
    images, labels = job.load_data()
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert images[:, 0, 0, 0].tolist() == [0, 85, 170, 0, 85, 170, 0]
    pixels, _ = job.load_pixels()
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels.ravel(), labels / 3, atol=1e-7)


def test_warm_up_of_a_whole_training_is_short():
    """The first round takes few images, all others take all."""
    counts = []
    driver = SimpleNamespace(wait=lambda: None, answer=lambda: counts.append("done"))
    job = workers.Job("frozen_phase", "ours", "mnist", 5000, 3)
    workers._repeat_training(job, driver, counts.append)
    assert counts == [workers.FROZEN_WARM_UP_IMAGES, "done", 5000, "done", 5000, "done"]


def test_unknown_layers_are_refused():
    """Batch normalisation has no counterpart among the competitors yet."""
    document = {"encoder_layers": [["batchNorm"]], "decoder_layers": []}
    document |= {"optimizer": ["adam", 0.001], "batch_size": 1, "epochs": 1}
    config = validate_config(document, "test", "autoencoder")
    with pytest.raises(ValueError, match="unknown layer"):
        workers.get_plain_autoencoder(config, (4, 4, 1))


@pytest.mark.parametrize(
    ("images", "batch_sizes"),
    [(images, run.DEFAULT.batch_sizes) for images in run.ROUND_IMAGES.values()]
    + [(plan.images, plan.batch_sizes) for plan in (gpu.Plan(), gpu.QUICK)],
)
def test_rounds_are_whole_batches(images, batch_sizes):
    """No batch of another size, which would be compiled and measured as well."""
    assert not any(images % batch_size for batch_size in batch_sizes)


# The program


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """run.py in which nothing is computed, and that writes its files into a folder of its own."""
    results, figure = tmp_path / "results.json", tmp_path / "benchmark.png"

    def take_turns(job):
        numbers = {name: place for place, name in enumerate(run.TASKS[job.task])}
        return {name: [1.0 + place] * (job.rounds - 1) for name, place in numbers.items()}

    def train(competitor, dataset, images):
        scale = {"keras": 4000, "ours": 1000}[competitor]
        return Round(seconds=2 + images / scale, peak_bytes=10**9 + images * scale)

    monkeypatch.setattr(run, "RESULTS", results)
    monkeypatch.setattr(run, "FIGURE", figure)
    monkeypatch.setattr(run, "choose_dataset", lambda: "mnist")
    monkeypatch.setattr(run, "_has_torch", lambda: True)
    monkeypatch.setattr(run, "_take_turns", take_turns)
    monkeypatch.setattr(run, "_time_process", lambda command, exit_code: 0.25 + exit_code)
    monkeypatch.setattr(run, "_train_in_fresh_process", train)
    return SimpleNamespace(results=results, figure=figure, folder=tmp_path)


def test_complete_run_has_stable_keys(measured):
    """Whoever compares runs relies on them."""
    assert run.main([]) == 0
    document = json.loads(measured.results.read_text())
    comparisons = ("vs_keras", "vs_torch", "bf16.vs_keras", "bf16.vs_torch_bf16")
    assert set(document["results"]) == {
        *(f"autoencoder.{s}.b{b}.{c}" for s in SIZES for b in (32, 128) for c in comparisons),
        *("frozen_phase.vs_keras", "evaluation.vs_keras", "memory.vs_keras"),
        *(f"startup.{name}_seconds" for name in ("help", "bad_configuration", "import_keras")),
        *(
            f"growth.{images}.{what}.vs_keras"
            for images in (7500, 15000, 30000, 60000)
            for what in ("seconds", "memory")
        ),
    }


def test_complete_run_is_recorded(measured):
    """Values by hand, the schema, and the figure."""
    assert run.main([]) == 0
    document = json.loads(measured.results.read_text())
    jsonschema.validate(document, SCHEMA)
    medians = {key: spread["median"] for key, spread in document["results"].items()}
    # The fake seconds of keras, torch, torch_bf16, ours and ours_bf16 are 1 to 5.
    assert medians["autoencoder.large.b128.vs_torch"] == pytest.approx(2 / 4)
    assert medians["autoencoder.small.b32.bf16.vs_torch_bf16"] == pytest.approx(3 / 5)
    assert medians["frozen_phase.vs_keras"] == pytest.approx(1 / 2)
    assert medians["memory.vs_keras"] == pytest.approx(1000 / 4000)
    assert medians["growth.15000.seconds.vs_keras"] == pytest.approx(1000 / 4000)
    assert medians["startup.bad_configuration_seconds"] == 2.25
    measurements = document["measurements"]
    assert measurements["memory"]["competitors"]["ours"]["rounds"] == [(60_000 - 256) / 1000]
    assert measurements["autoencoder.medium.b32"]["competitors"]["keras"]["rounds"] == [2048.0] * 8
    assert len(measurements["frozen_phase"]["competitors"]["ours"]["rounds"]) == 3
    assert len(measurements["startup"]["competitors"]["help"]["rounds"]) == 8
    assert measured.figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("flags", [["--quick"], ["--only", "evaluation"]])
def test_part_of_a_run_overwrites_nothing(measured, flags):
    """It is printed; --output writes it elsewhere."""
    assert run.main(flags) == 0
    assert list(measured.folder.iterdir()) == []
    other = measured.folder / "other.json"
    assert run.main([*flags, "--output", str(other)]) == 0
    jsonschema.validate(json.loads(other.read_text()), SCHEMA)
    assert not measured.results.exists()
    assert not measured.figure.exists()


def test_one_task_can_be_measured_again(measured):
    """The others stay as they were in the file."""
    path = measured.folder / "all.json"
    assert run.main(["--only", "evaluation", "--rounds", "2", "--output", str(path)]) == 0
    assert run.main(["--only", "frozen_phase", "--only", "evaluation", "--output", str(path)]) == 0
    document = json.loads(path.read_text())
    jsonschema.validate(document, SCHEMA)
    assert set(document["results"]) == {"evaluation.vs_keras", "frozen_phase.vs_keras"}
    assert run.main(["--only", "startup", "--output", str(path)]) == 0
    measurements = json.loads(path.read_text())["measurements"]
    assert len(measurements["evaluation"]["competitors"]["ours"]["rounds"]) == 8
    assert set(measurements) == {"evaluation", "frozen_phase", "startup"}


def test_one_autoencoder_can_be_measured_again(measured):
    """The others stay in the file, and in the figure, from small to large."""
    path = measured.folder / "all.json"
    for key in ("autoencoder.large.b32", "autoencoder.small.b128"):
        assert run.main(["--only", key, "--rounds", "2", "--output", str(path)]) == 0
    document = json.loads(path.read_text())
    jsonschema.validate(document, SCHEMA)
    drawn = [measurement.key for measurement in report.get_measurements(document)]
    assert drawn == ["autoencoder.small.b128", "autoencoder.large.b32"]
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    both = ["--only", "autoencoder.large.b32", "--only", "autoencoder"]
    assert run.main([*both, "--rounds", "2", "--output", str(path)]) == 0
    assert len(json.loads(path.read_text())["measurements"]) == 6


def test_stopped_run_writes_nothing(measured, monkeypatch):
    """Not even what was measured before."""

    def stop(command, exit_code):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_time_process", stop)
    assert run.main([]) == 130
    assert list(measured.folder.iterdir()) == []


def test_flags_change_the_plan(measured):
    """--rounds holds for all tasks, --full goes on to 240,000 images, --only selects."""
    flags = ["--full", "--rounds", "2", "--only", "growth", "--only", "frozen_phase"]
    assert run.main([*flags, "--output", str(measured.folder / "part.json")]) == 0
    document = json.loads((measured.folder / "part.json").read_text())
    assert len(document["measurements"]["frozen_phase"]["competitors"]["keras"]["rounds"]) == 2
    assert "growth.240000.memory.vs_keras" in document["results"]
    assert not any(key.startswith("autoencoder") for key in document["results"])
    assert not (measured.folder / "part.png").exists()


@pytest.mark.parametrize(
    ("program", "flags", "message"),
    [
        (run, ["--only", "autoencoders"], "invalid choice: 'autoencoders'"),
        (run, ["--rounds", "0"], "must be a whole number from 1 to 1000, got '0'"),
        (run, ["--quik"], "Did you mean --quick?"),
        (run, ["--output", "no/such/folder/x.json"], "must be a file in a folder that can be"),
        (run, ["--output", "."], "must be a file in a folder that can be"),
        (gpu, ["--device", "tpu"], "invalid choice: 'tpu'"),
        (gpu, ["--output", "no/such/folder/x.json"], "must be a file in a folder that can be"),
    ],
)
def test_wrong_flags_are_one_line(capsys, program, flags, message):
    """Before anything is measured."""
    assert program.main(flags) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert captured.out == ""


def test_digits_stand_in_for_mnist(monkeypatch, capsys):
    """And the output says so."""

    def check_dataset(name):
        if name == "mnist":
            raise run.DataError("mnist", "must be downloaded first")

    monkeypatch.setattr(run, "check_dataset", check_dataset)
    assert run.choose_dataset() == "digits"
    assert "Measuring on digits" in capsys.readouterr().err


def test_torch_is_optional(monkeypatch):
    """Without it the others still take their turns."""
    seen = []
    monkeypatch.setattr(run, "_has_torch", lambda: False)
    monkeypatch.setattr(run, "interleave", lambda workers, rounds: seen.extend(workers))
    run._take_turns(workers.Job("autoencoder", "", "mnist", 64, 2))
    assert seen == ["keras", "ours", "ours_bf16"]


def test_unexpected_exit_is_not_timed():
    """A program that fails at once would look fast."""
    with pytest.raises(AssertionError, match="exited with 3: b'oh'"):
        run._time_process(child("sys.stderr.write('oh'); sys.exit(3)"), exit_code=0)


def test_frameworks_load_in_workers_alone():
    """The drivers need none, so that no process has two."""
    code = (
        "import benchmarks.run, benchmarks.gpu\n"
        "heavy = {'tensorflow', 'keras', 'torch', 'jax', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(child(code), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# Table and figure


def test_table_fits_a_terminal():
    """80 columns, nothing cut."""
    big = {name: [12_345.6, 23_456.7] for name in speeds_with_bfloat16()}
    measurements = [
        Measurement("autoencoder.medium.b128", "images/s", big),
        Measurement("startup", "s", {"bad_configuration": [0.25, 0.35]}),
    ]
    console = Console(file=io.StringIO(), width=80)
    report.print_table(measurements, console)
    text = console.file.getvalue()
    assert "…" not in text
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "autoencoder.medium.b128, images/s" in rows
    assert "PyTorch 17,901 12,346 to 23,457" in rows
    assert "ours 17,901 12,346 to 23,457 1.00 1.00" in rows
    assert "bad_configuration 0.30 0.25 to 0.35" in rows


def test_figure_has_a_panel_for_each_size_and_batch():
    """Bars are fastest rounds; the lines on them reach to the median."""
    import matplotlib.pyplot as plt

    measurements = [
        Measurement(f"autoencoder.{size}.b{batch}", "images/s", speeds_with_bfloat16())
        for size in ("small", "large")
        for batch in (32, 128)
    ] + [Measurement("evaluation", "images/s", SPEEDS)]
    figure = report.plot_speeds(measurements, "Training")
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["small, batch 32", "large, batch 32", "small, batch 128", "large, batch 128"]
    ax = figure.axes[0]
    assert [bar.get_width() for bar in ax.patches] == [20.0, 40.0, 40.0, 20.0, 60.0]
    spread = ax.collections[1].get_segments()[0]
    assert spread[:, 0].tolist() == [22.5, 40.0]
    assert all(ax.yaxis_inverted() for ax in figure.axes)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["plain Keras", "PyTorch", "ours", "PyTorch, bfloat16", "ours, bfloat16"]
    plt.close(figure)


def test_bars_of_a_column_share_an_axis_that_holds_the_longest():
    """Whichever row has it."""
    import matplotlib.pyplot as plt

    measurements = [
        Measurement("autoencoder.small.b32", "images/s", {"keras": [10.0]}),
        Measurement("autoencoder.small.b128", "images/s", {"keras": [90.0, 100.0]}),
    ]
    figure = report.plot_speeds(measurements, "Training")
    for ax in figure.axes:
        assert ax.get_xlim()[0] == 0 and ax.get_xlim()[1] > 100
    plt.close(figure)


def test_work_by_hand():
    """Two passes of the first convolution, three of the transposed one with kernels of 4 x 4."""
    config = validate_config(
        {
            "encoder_layers": [["conv", 5, [3, 3]], ["pool", [2, 2]]],
            "decoder_layers": [["upSample", [2, 2]]],
            "optimizer": ["adam", 0.001],
            "batch_size": 8,
            "epochs": 1,
        },
        "test",
        "autoencoder",
    )
    work = profile_step.count_work(config, (8, 8, 1))
    first, output = 8 * 8 * 9 * 5, 4 * 4 * 16 * 5
    assert work.operations == 2 * (2 * first + 3 * output)
    pooled = 4 * 4 * 5
    assert work.bytes == 4 * (2 * (64 + 64 * 5) + 4 * pooled + 3 * (pooled + 64))


@pytest.mark.parametrize(("size", "millions"), [("small", 81.7), ("medium", 166.0), ("large", 469)])
def test_work_of_the_shipped_autoencoders(size, millions):
    """Six operations for every multiplication of docs/performance.md but the first layer's."""
    work = profile_step.count_work(workers.get_config(size), (28, 28, 1))
    assert work.operations / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("_MklNativeConv2DBackpropFilterWithBias", "gradient of the kernel"),
        ("_MklNativeFusedConv2D", "forward"),
        ("_MklMatMul", "matrix products"),
        ("AssignSubVariableOp", "everything else"),
    ],
)
def test_kinds_of_operations(operation, kind):
    """Names as TensorFlow's profiler gives them."""
    assert kind in profile_step._get_kind(operation)

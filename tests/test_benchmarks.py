"""The arithmetic, keys and files of benchmarks/, without measuring anything."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks import competitors, results, run
from benchmarks.competitors import Job
from benchmarks.results import SIZES, Measurement
from benchmarks.rounds import Round, Worker, get_ratios, get_spread, interleave
from cae.errors import DataError, UserError

ROOT = Path(__file__).parent.parent
SPEEDS = {"keras": [10.0, 20.0], "torch": [5.0, 40.0], "ours": [30.0, 40.0]}
BF16_SPEEDS = {**SPEEDS, "torch_bf16": [20.0, 20.0], "ours_bf16": [40.0, 60.0]}


class TestArithmetic:
    def test_spread(self):
        """The median of an even number of values lies between the two in the middle."""
        assert get_spread([4.0, 1.0, 3.0, 10.0]) == {"median": 3.5, "min": 1.0, "max": 10.0}

    def test_ratios_pair_rounds(self):
        """Rounds are compared before the median is taken: medians would give 4 / 2 here."""
        ratios = get_ratios([1.0, 4.0, 9.0], [1.0, 2.0, 3.0])
        assert ratios == {"median": 2.0, "min": 1.0, "max": 3.0}
        assert get_ratios([1.0, 4.0, 4.0], [4.0, 1.0, 2.0])["median"] == 2.0
        with pytest.raises(ValueError, match="shorter"):
            get_ratios([1.0, 2.0], [1.0])

    @pytest.mark.parametrize(
        ("unit", "median"), [("images/s", 2.5), ("s", (10 / 30 + 20 / 40) / 2), ("MB", 2.5)]
    )
    def test_direction_of_ratios(self, unit, median):
        """Above 1 is faster for speeds and times; of memory it is our share of theirs."""
        ratios = Measurement("work", unit, SPEEDS).compare()
        assert ratios["work.vs_keras"]["median"] == pytest.approx(median)

    def test_bfloat16_is_compared_with_bfloat16(self):
        """And with plain Keras, which has nothing else."""
        ratios = Measurement("work", "images/s", BF16_SPEEDS).compare()
        assert {key: spread["median"] for key, spread in ratios.items()} == {
            "work.vs_keras": 2.5,
            "work.vs_torch": 3.5,
            "work.bf16.vs_keras": 3.5,
            "work.bf16.vs_torch_bf16": 2.5,
        }


def child(code):
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]


class TestTurns:
    def test_competitors_take_turns(self):
        """Each starts and warms up before the next one starts; the warm-up does not count."""
        turns = []

        class FakeWorker:
            def __init__(self, name):
                self.name, self.seconds = name, iter([100.0, 1.0, 2.0])

            def __enter__(self):
                turns.append(f"start {self.name}")
                return self

            def __exit__(self, *_):
                turns.append(f"end {self.name}")

            def run_round(self):
                turns.append(self.name)
                return Round(next(self.seconds), 0)

        seconds = interleave({name: FakeWorker(name) for name in "ab"}, rounds=2)
        assert seconds == {"a": [1.0, 2.0], "b": [1.0, 2.0]}
        assert turns == [*("start a", "a", "start b", "b"), *"abab", *("end b", "end a")]

    def test_worker_answers_when_told(self):
        """What the child prints is no answer, and its seconds are those of the round."""
        code = """
import time
from benchmarks.competitors import Driver
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

    def test_worker_that_fails(self):
        """The error names the competitor, its exit code and its last line."""
        with (
            Worker("child", child("raise SystemExit('no memory')")) as worker,
            pytest.raises(UserError, match=r"^child: .*exit code 1 \(no memory\)"),
        ):
            worker.run_round()

    def test_competitor_without_driver_ends(self):
        """End of input is an end, never a loop."""
        code = "from benchmarks.competitors import Driver\nDriver().wait()"
        done = subprocess.run(
            child(code), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1


class TestCompetitors:
    """What is compared is the same."""

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
    def test_parameters(self, size, parameters):
        config = competitors.get_config(f"autoencoder_{size}")
        assert competitors.count_parameters(config, channels=1) == parameters

    @pytest.mark.parametrize("size", SIZES)
    def test_plain_autoencoder_is_ours(self, size):
        """With the same weights, the textbook model draws what ours draws."""
        from model import get_autoencoder

        config = competitors.get_config(f"autoencoder_{size}")
        images = np.random.default_rng(0).random((2, 12, 12, 1), dtype=np.float32)
        ours = get_autoencoder(config, images.shape[1:])
        plain = competitors.get_plain_autoencoder(config, images.shape[1:])
        plain.set_weights(ours.get_weights())
        np.testing.assert_allclose(plain(images), ours(images), atol=1e-6)

    def test_plain_classifier_is_ours(self):
        """The same, of the classifier; only its head is trained."""
        from model import get_autoencoder, get_classifier

        job = Job("frozen_phase", "keras", "", 64, 2)
        images = np.random.default_rng(0).random((2, 12, 12, 1), dtype=np.float32)
        shape = images.shape[1:]
        encoder = get_autoencoder(job.autoencoder, shape)
        ours = get_classifier(job.classifier, shape, competitors.NUM_CLASSES, encoder=encoder)
        plain = competitors.get_plain_classifier(job.autoencoder, job.classifier, shape)
        head = ours.get_layer("fully_connected")
        assert len(plain.trainable_weights) == len(head.weights) == 6
        # Keras lists the weights that are trained first, ours those of the encoder.
        plain.layers[0].set_weights(ours.get_layer("encoder").get_weights())
        for layer, like in zip(plain.layers[1:], head.layers[1:], strict=True):
            layer.set_weights(like.get_weights())
        np.testing.assert_allclose(plain(images), ours(images), atol=1e-6)

    def test_jobs_differ_in_precision_alone(self):
        """All train on all images, with the same batches and epochs."""
        config = Job("autoencoder", "ours", "", 64, 9, "medium", 128).autoencoder
        low = Job("autoencoder", "ours_bf16", "", 64, 9, "medium", 128).autoencoder
        assert (config["batch_size"], config["epochs"], config["validation_split"]) == (128, 9, 0)
        assert (config["mixed_precision"], low["mixed_precision"]) == (False, True)
        assert {**low, "mixed_precision": False} == config

    def test_frozen_phase_trains_the_head_alone(self):
        """At a constant rate, and with 10,000 of 60,000 images for validation."""
        config = Job("frozen_phase", "ours", "", 60_000, 2).classifier
        assert (config["dense_only_train_epochs"], config["full_train_epochs"]) == (10, 0)
        assert config["learning_rate_schedule"] is None
        assert round(60_000 * config["validation_split"]) == 10_000

    def test_all_load_the_same_images(self, tmp_path):
        """Repeated in order if there are too few; the first ones if there are more."""
        run.write_data("digits", 2000, str(tmp_path))
        job = Job("autoencoder", "keras", str(tmp_path), 1500, 1)
        images, labels = job.load_images(), job.load_labels()
        assert (images.shape, images.dtype, labels.shape) == ((1500, 28, 28, 1), np.uint8, (1500,))
        np.testing.assert_array_equal(images[1442:], images[:58])
        np.testing.assert_array_equal(labels[1442:], labels[:58])
        assert job.load_pixels().max() == pytest.approx(images.max() / 255)

    def test_rounds_are_whole_batches(self):
        """No batch of another size, which would be compiled and measured as well."""
        for images in run.ROUND_IMAGES.values():
            assert not any(images % batch_size for batch_size in run.DEFAULT.batch_sizes)


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """run.py without competitors, which writes its files into a folder of its own."""

    def take_turns(workers, rounds):
        return {name: [1.0 + place] * rounds for place, name in enumerate(workers)}

    def train(competitor, data, images):
        scale = {"keras": 4000, "ours": 1000}[competitor]
        return Round(seconds=2 + images / scale, peak_bytes=10**9 + images * scale)

    monkeypatch.setattr(run, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(run, "FIGURE", tmp_path / "benchmark.png")
    monkeypatch.setattr(run, "choose_dataset", lambda: "digits")
    monkeypatch.setattr(run, "interleave", take_turns)
    monkeypatch.setattr(run, "_has_torch", lambda: True)
    monkeypatch.setattr(run, "_time_process", lambda command, exit_code: 0.25 + exit_code)
    monkeypatch.setattr(run, "_train_in_fresh_process", train)
    return tmp_path


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


class TestProgram:
    def test_complete_run_has_stable_keys(self, measured):
        """Comparisons of runs rely on them; the committed results have the same."""
        assert run.main(["--full"]) == 0
        comparisons = ("vs_keras", "vs_torch", "bf16.vs_keras", "bf16.vs_torch_bf16")
        keys = set(read(measured / "results.json")["results"])
        assert keys == {
            *(f"autoencoder.{s}.b{b}.{c}" for s in SIZES for b in (32, 128) for c in comparisons),
            *("frozen_phase.vs_keras", "evaluation.vs_keras", "memory.vs_keras"),
            *(f"startup.{name}_seconds" for name in ("help", "bad_configuration", "import_keras")),
            *(
                f"growth.{images}.{what}.vs_keras"
                for images in (7500, 15000, 30000, 60000, 120_000, 240_000)
                for what in ("seconds", "memory")
            ),
        }
        assert keys == set(read(ROOT / "benchmarks" / "results.json")["results"])

    def test_complete_run_is_recorded(self, measured):
        """Values by hand, the machine, and the figure."""
        assert run.main([]) == 0
        document = read(measured / "results.json")
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
        assert measurements["autoencoder.medium.b32"]["competitors"]["keras"]["rounds"] == (
            [2048.0] * 8
        )
        assert len(measurements["frozen_phase"]["competitors"]["ours"]["rounds"]) == 3
        assert {"processor", "instructions", "cores"} <= document["machine"].keys()
        assert {"python", "keras", "tensorflow", "torch"} <= document["versions"].keys()
        assert (measured / "benchmark.png").read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize("flags", [["--quick"], ["--only", "evaluation"], ["--against", "."]])
    def test_part_of_a_run_overwrites_nothing(self, measured, monkeypatch, flags):
        """It is printed; --output writes it elsewhere."""
        monkeypatch.chdir(ROOT)
        assert run.main(flags) == 0
        assert list(measured.iterdir()) == []
        assert run.main([*flags, "--output", str(measured / "other.json")]) == 0
        assert "results" in read(measured / "other.json")
        assert not run.RESULTS.exists() and not run.FIGURE.exists()

    def test_one_task_can_be_measured_again(self, measured):
        """The others stay in the file, and in the figure, from small to large."""
        path = measured / "all.json"
        for flags in (["autoencoder", "--rounds", "2"], ["evaluation"], ["startup"]):
            assert run.main(["--only", *flags, "--output", str(path)]) == 0
        measurements = results.get_measurements(read(path))
        assert [m.key for m in measurements][::2] == [
            *(f"autoencoder.{size}.b32" for size in SIZES),
            "evaluation",
        ]
        assert len(measurements[0].values["ours"]) == 2
        assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    def test_other_checkout_is_compared(self, measured, monkeypatch, capsys):
        """The same jobs from two places: three autoencoders and both phases of a classifier."""
        jobs = {}
        monkeypatch.setattr(run, "_get_worker", lambda name, job: jobs.setdefault(name, job))
        (measured / "before").mkdir()
        (measured / "before" / "model.py").touch()
        assert run.main(["--against", str(measured / "before")]) == 0
        lines = capsys.readouterr().out
        for key in (*(f"autoencoder.{size}.b32" for size in SIZES), "frozen_phase", "full_phase"):
            ours, other = jobs[f"ours, {key}"], jobs[f"other, {key}"]
            assert (ours.checkout, other.checkout) == (str(ROOT), str(measured / "before"))
            assert ours.rounds == other.rounds == 8 + 1
            # The other checkout took 1 s per round, this one 2 s.
            assert f"{key}: 0.500 times as fast" in lines

    def test_stopped_run_writes_nothing(self, measured, monkeypatch):
        def stop(command, exit_code):
            raise KeyboardInterrupt

        monkeypatch.setattr(run, "_time_process", stop)
        assert run.main([]) == 130
        assert list(measured.iterdir()) == []

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--only", "autoencoders"], "'autoencoders'"),
            (["--rounds", "0"], "--rounds"),
            (["--quik"], "--quick"),
            (["--output", "no/such/folder/x.json"], "no/such/folder/x.json"),
            (["--output", "."], "--output"),
            (["--against", "no/such/folder"], "no/such/folder"),
        ],
    )
    def test_wrong_flags_are_one_line(self, capsys, flags, message):
        """Before anything is measured."""
        assert run.main(flags) == 2
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert line.startswith("error: ") and message in line
        assert captured.out == ""

    def test_digits_stand_in_for_mnist(self, monkeypatch, capsys):
        """And the output says so."""

        def check_dataset(name):
            raise DataError(name, "must be downloaded first")

        monkeypatch.setattr(run, "check_dataset", check_dataset)
        assert run.choose_dataset() == "digits"
        assert "digits" in capsys.readouterr().err

    def test_torch_is_optional(self, measured, monkeypatch):
        """Without it the others still take their turns."""
        monkeypatch.setattr(run, "_has_torch", lambda: False)
        path = measured / "part.json"
        assert run.main(["--quick", "--output", str(path)]) == 0
        found = read(path)["measurements"]["autoencoder.small.b32"]["competitors"]
        assert set(found) == {"keras", "ours", "ours_bf16"}

    def test_unexpected_exit_is_not_timed(self):
        """A program that fails at once would look fast."""
        with pytest.raises(AssertionError, match="exited with 3: b'oh'"):
            run._time_process(child("sys.stderr.write('oh'); sys.exit(3)"), exit_code=0)

    def test_frameworks_load_in_competitors_alone(self):
        """The driver needs none, and competitors come with a checkout of their choice."""
        code = (
            "import benchmarks.competitors\n"
            "assert not [name for name in sys.modules if name.split('.')[0] == 'cae']\n"
            "import benchmarks.run\n"
            "heavy = {'tensorflow', 'keras', 'torch', 'jax', 'matplotlib'} & set(sys.modules)\n"
            "assert not heavy, heavy"
        )
        done = subprocess.run(child(code), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


class TestOutput:
    def test_table_fits_a_terminal(self):
        """80 columns, nothing cut."""
        big = {name: [12_345.6, 23_456.7] for name in BF16_SPEEDS}
        measurements = [
            Measurement("autoencoder.medium.b128", "images/s", big),
            Measurement("startup", "s", {"bad_configuration": [0.25, 0.35]}),
        ]
        console = Console(file=io.StringIO(), width=80)
        console.print(results.make_table(measurements))
        rows = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
        assert "autoencoder.medium.b128, images/s" in rows
        assert "PyTorch 17,901 12,346 to 23,457" in rows
        assert "ours 17,901 12,346 to 23,457 1.00 1.00" in rows
        assert "bad_configuration 0.30 0.25 to 0.35" in rows

    def test_figure_has_a_panel_for_each_size_and_batch(self):
        """Bars are fastest rounds; the lines on them reach to the median."""
        measurements = [
            Measurement(f"autoencoder.{size}.b{batch}", "images/s", BF16_SPEEDS)
            for size in ("small", "large")
            for batch in (32, 128)
        ]
        figure = results.plot_speeds(
            [*measurements, Measurement("evaluation", "images/s", SPEEDS)], "Training"
        )
        titles = [ax.get_title(loc="left") for ax in figure.axes]
        assert titles == [f"{size}, batch {b}" for b in (32, 128) for size in ("small", "large")]
        ax = figure.axes[0]
        assert [bar.get_width() for bar in ax.patches] == [20.0, 40.0, 40.0, 20.0, 60.0]
        spread = ax.collections[1].get_segments()[0]
        assert spread[:, 0].tolist() == [22.5, 40.0]
        labels = [label.get_text() for label in ax.get_yticklabels()]
        assert labels == [results.NAMES[name] for name in BF16_SPEEDS]
        assert ax.get_xlim()[0] == 0 and ax.get_xlim()[1] > 60

    def test_machine_names_its_instructions(self, tmp_path):
        """Ratios between competitors depend on them; other systems than Linux do not say."""
        cpuinfo = tmp_path / "cpuinfo"
        cpuinfo.write_text("model name\t: Fast One\nflags\t\t: fpu avx2 amx_bf16 avx512f\n\n" * 2)
        machine = results.describe_machine(cpuinfo)
        assert machine["processor"] == "Fast One"
        assert machine["instructions"] == ["avx2", "avx512f", "amx_bf16"]
        assert results.describe_machine(tmp_path / "none")["instructions"] == []

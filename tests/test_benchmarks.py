"""The arithmetic, keys and files of benchmarks/, without measuring anything."""

import contextlib
import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, read_json
from rich.console import Console

from benchmarks import competitors, fashion_mnist, results, run
from benchmarks.competitors import PARAMETERS, TASKS, Job, answer_from_files
from benchmarks.results import Contest
from benchmarks.rounds import Round, Worker, get_ratios, interleave
from cae.data.datasets import load_dataset
from cae.errors import DataError, UserError

SPEEDS = {"keras": [10.0, 20.0], "torch": [5.0, 40.0], "ours": [30.0, 40.0]}
BF16_SPEEDS = {**SPEEDS, "torch_bf16": [20.0, 20.0], "ours_bf16": [40.0, 60.0]}


class TestArithmetic:
    def test_ratios_pair_rounds(self):
        """Rounds are compared before the median is taken: medians would give 4 / 2 here."""
        assert get_ratios([1.0, 4.0, 4.0], [4.0, 1.0, 2.0])["median"] == 2.0
        ratios = get_ratios([1.0, 4.0, 9.0, 4.0], [1.0, 2.0, 3.0, 4.0])
        assert ratios == {"median": 1.5, "min": 1.0, "max": 3.0}
        with pytest.raises(ValueError, match="shorter"):
            get_ratios([1.0, 2.0], [1.0])

    @pytest.mark.parametrize(
        ("unit", "median", "fastest"),
        [("images/s", 2.5, 2.0), ("s", (10 / 30 + 20 / 40) / 2, 10 / 30), ("MB", 2.5, 3.0)],
    )
    def test_direction_of_ratios(self, unit, median, fastest):
        """Above 1 is faster for speeds and times; of memory it is our share of theirs."""
        ratios = Contest("work", unit, SPEEDS).compare()["work.vs_keras"]
        assert (ratios["median"], ratios["fastest"]) == pytest.approx((median, fastest))

    def test_bfloat16_is_compared_with_bfloat16(self):
        """And with plain Keras, which has nothing else."""
        ratios = Contest("work", "images/s", BF16_SPEEDS).compare()
        expected = {"work.vs_keras": 2.5, "work.vs_torch": 3.5}
        expected |= {"work.bf16.vs_keras": 3.5, "work.bf16.vs_torch_bf16": 2.5}
        assert {key: spread["median"] for key, spread in ratios.items()} == expected

    def test_a_start_is_compared_with_bare_python(self):
        """How many times as long it takes, and the seconds."""
        seconds = {"python": [0.02, 0.03], "help": [0.08, 0.09], "bad_configuration": [0.4, 0.3]}
        found = results.get_results([Contest("startup", "s", seconds)])
        assert found["startup.help_vs_python"]["median"] == pytest.approx((4 + 3) / 2)
        assert found["startup.bad_configuration_vs_python"]["fastest"] == pytest.approx(15)
        assert found["startup.python_seconds"]["max"] == 0.03


def child(code):
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]


class TestTurns:
    def test_competitors_take_turns(self):
        """After a warm-up each, which does not count."""
        turns = []

        class FakeWorker(contextlib.AbstractContextManager):
            def __init__(self, name):
                self.name = name

            def __exit__(self, *_):
                pass

            def run_round(self):
                turns.append(self.name)
                return Round(len(turns), 0)

        workers = {name: FakeWorker(name) for name in "ab"}
        assert interleave(workers, rounds=2) == {"a": [3, 5], "b": [4, 6]}
        assert turns == [*"ababab"]

    def test_worker_answers_when_told(self):
        """What the child prints is no answer, and its seconds are those of the round."""
        code = (
            "import time\n"
            "from benchmarks.competitors import Driver\n"
            "Driver().repeat(2, lambda: (print('loading'), time.sleep(0.02)))"
        )
        with Worker("child", child(code)) as worker:
            rounds = [worker.run_round(), worker.run_round()]
        assert all(answer.seconds >= 0.02 for answer in rounds)
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
        done = subprocess.run(child(code), stdin=subprocess.DEVNULL, capture_output=True)
        assert done.returncode == 1


class TestCompetitors:
    """What is compared is the same."""

    @pytest.mark.parametrize("size", PARAMETERS)
    def test_plain_autoencoder_is_ours(self, size):
        """With the same weights, the textbook model draws what ours draws."""
        from model import get_autoencoder

        config = competitors.get_config(f"autoencoder_{size}")
        images = np.random.default_rng(0).random((2, 12, 12, 1), dtype=np.float32)
        ours = get_autoencoder(config, images.shape[1:])
        plain = competitors.get_plain_autoencoder(config, images.shape[1:])
        plain.set_weights(ours.get_weights())
        np.testing.assert_allclose(plain(images), ours(images), atol=1e-6)
        assert ours.count_params() == PARAMETERS[size]

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

    def test_precisions_differ_in_nothing_else(self):
        job = Job("autoencoder", "ours", "", 64, 9, "medium", 128)
        low = replace(job, competitor="ours_bf16").autoencoder
        assert low == {**job.autoencoder, "mixed_precision": True} != job.autoencoder

    def test_all_batches_are_whole(self):
        """One of another size would be compiled and measured as well."""
        for images in run.ROUND_IMAGES.values():
            assert not any(images % batch_size for batch_size in run.DEFAULT.batch_sizes)

    def test_all_load_the_same_images(self, tmp_path, monkeypatch, capsys):
        """Digits in place of MNIST, which is said; repeated in order if there are too few."""

        def check_dataset(name):
            raise DataError(name, "must be downloaded first")

        monkeypatch.setattr(run, "check_dataset", check_dataset)
        assert run.write_data(2000, str(tmp_path)) == "digits"
        assert "digits" in capsys.readouterr().err
        job = Job("autoencoder", "keras", str(tmp_path), 1500, 1)
        images, labels = job.load_images(), job.load_labels()
        assert (images.shape, images.dtype, labels.shape) == ((1500, 28, 28, 1), np.uint8, (1500,))
        np.testing.assert_array_equal(images[1442:], images[:58])
        np.testing.assert_array_equal(labels[1442:], labels[:58])
        assert job.load_pixels().max() == pytest.approx(images.max() / 255)


class TestAnswers:
    def test_files_are_read_in_every_round(self, tmp_path):
        """A picture that could not be read would make a round shorter, so it is an error."""
        rng = np.random.default_rng(0)
        np.save(tmp_path / "images.npy", rng.integers(0, 255, (30, 28, 28, 1), np.uint8))
        done = []

        class Driver:
            def repeat(self, rounds, work):
                work()
                done.append(rounds)
                (tmp_path / "png" / "00007.png").write_bytes(b"")
                work()

        with pytest.raises(AssertionError, match="29 answers instead of 30"):
            answer_from_files(Job("answers", "ours", str(tmp_path), 30, 2), Driver())
        assert done == [2]


MACHINE = {"processor": "Fast One", "instructions": ["avx2", "avx512_bf16"]}
MACHINE |= {"kind": "avx512_bf16", "has_bfloat16": True}


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """run.py without competitors, which writes its files into a folder of its own."""

    def take_turns(workers, rounds):
        return {name: [1.0 + place] * rounds for place, name in enumerate(workers)}

    def train(competitor, data, images):
        scale = {"keras": 4000, "ours": 1000}[competitor]
        return Round(seconds=2 + images / scale, peak_bytes=10**9 + images * scale)

    monkeypatch.setattr(run, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(run, "FIGURES", tmp_path)
    monkeypatch.setattr(results, "describe_machine", lambda: MACHINE)
    monkeypatch.setattr(run, "write_data", lambda images, folder: "digits")
    monkeypatch.setattr(run, "interleave", take_turns)
    monkeypatch.setattr(run, "find_absent", lambda names: {})
    monkeypatch.setattr(run, "time_process", lambda command, exit_code: 0.25 + exit_code)
    monkeypatch.setattr(run, "train_in_fresh_process", train)
    return tmp_path


class TestProgram:
    def test_complete_run(self, measured):
        """Stable keys, which the committed results have too; values by hand; the machine."""
        assert run.main([]) == 0
        document = read_json(measured / "results.json")["avx512_bf16"]
        medians = {key: spread["median"] for key, spread in document["results"].items()}
        committed = read_json(ROOT / "benchmarks" / "results.json").values()
        committed = {key for document in committed for key in document["results"]}
        # A machine without a C++ compiler has no compiled PyTorch.
        compiled = {f"autoencoder.{s}.b{b}" for s in PARAMETERS for b in (32, 128)}
        compiled = {f"{key}.{low}vs_torch_compile" for key in compiled for low in ("", "bf16.")}
        assert medians.keys() == committed | compiled
        # The fake seconds of keras, torch, its three variants, ours and ours_bf16 are 1 to 7.
        assert medians["autoencoder.large.b128.vs_torch"] == pytest.approx(2 / 6)
        assert medians["autoencoder.small.b32.bf16.vs_torch_compile"] == pytest.approx(5 / 7)
        assert medians["frozen_phase.vs_keras"] == pytest.approx(1 / 2)
        assert medians["memory.vs_keras"] == pytest.approx(1000 / 4000)
        assert medians["growth.15000.seconds.vs_keras"] == pytest.approx(1000 / 4000)
        assert medians["startup.bad_configuration_vs_python"] == 9
        found = document["measurements"]
        assert found["memory"]["competitors"]["ours"]["rounds"] == [(60_000 - 256) / 1000]
        assert found["autoencoder.medium.b32"]["competitors"]["keras"]["rounds"] == [2048.0] * 8
        assert len(found["frozen_phase"]["competitors"]["ours"]["rounds"]) == 3
        assert {"date", "processor", "instructions", "unit"} < found["evaluation"].keys()
        assert {"python", "keras", "tensorflow", "torch"} <= document["versions"].keys()
        figure = measured / "benchmark-avx512_bf16.png"
        assert figure.read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize("flags", [["--quick"], ["--only", "evaluation"], ["--against", "."]])
    def test_a_part_is_only_printed(self, measured, monkeypatch, flags):
        monkeypatch.chdir(ROOT)
        assert run.main(flags) == 0
        assert list(measured.iterdir()) == []

    def test_a_part_can_be_measured_again(self, measured, monkeypatch):
        """With --save the others stay in the file, and those of other kinds of processor."""
        for task in (["autoencoder", "--rounds", "2"], ["evaluation"]):
            assert run.main(["--only", *task, "--save"]) == 0
        monkeypatch.setattr(results, "describe_machine", lambda: {**MACHINE, "kind": "avx2"})
        assert run.main(["--only", "evaluation", "--save"]) == 0
        documents = read_json(run.RESULTS)
        assert list(documents["avx2"]["measurements"]) == ["evaluation"]
        document = documents["avx512_bf16"]
        *autoencoders, evaluation = document["measurements"]
        assert evaluation == "evaluation" and len(autoencoders) == 6
        assert len(document["measurements"][autoencoders[0]]["competitors"]["ours"]["rounds"]) == 2

    def test_what_was_measured_before_a_stop_is_kept(self, measured, monkeypatch):
        """Ctrl-C in the second of two tasks."""

        def stop(command, exit_code):
            raise KeyboardInterrupt

        monkeypatch.setattr(run, "time_process", stop)
        assert run.main(["--only", "evaluation", "--only", "startup", "--save"]) == 130
        assert list(read_json(run.RESULTS)["avx512_bf16"]["measurements"]) == ["evaluation"]

    def test_other_checkout_is_compared(self, measured, monkeypatch, capsys):
        """The same jobs from two places: three autoencoders and both phases of a classifier."""
        jobs = {}
        monkeypatch.setattr(run, "get_worker", lambda name, job: jobs.setdefault(name, job))
        (measured / "model.py").touch()
        assert run.main(["--against", str(measured)]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        for key in (*(f"autoencoder.{s}.b32" for s in PARAMETERS), "frozen_phase", "full_phase"):
            ours, other = jobs[f"ours, {key}"], jobs[f"other, {key}"]
            assert (ours.checkout, other.checkout) == (str(ROOT), str(measured))
            assert ours.rounds == other.rounds == 8 + 1
            assert f"{key}, s other checkout 1.00" in printed
        # The other checkout took 1 s per round, this one 2 s.
        assert printed.count("vs_other 0.500 0.500 to 0.500 0.500") == 5

    def test_another_checkout_must_be_one(self, capsys):
        assert run.main(["--against", "no/such/folder"]) == 2
        assert "no/such/folder" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("found", "has_bfloat16", "left"),
        [
            ({}, True, {"ours_bf16"}),
            ({"torch": "a module"}, True, {"torch", "torch_bf16", "ours_bf16"}),
            ({"torch": "a module"}, False, {"torch"}),
        ],
    )
    def test_torch_a_compiler_and_bfloat16_are_optional(
        self, monkeypatch, found, has_bfloat16, left
    ):
        """What is missing is named."""
        monkeypatch.setattr(run.importlib.util, "find_spec", found.get)
        monkeypatch.setattr(run.shutil, "which", lambda name: None)
        machine = {**MACHINE, "has_bfloat16": has_bfloat16}
        monkeypatch.setattr(results, "describe_machine", lambda: machine)
        absent = run.find_absent(TASKS["autoencoder"])
        assert set(TASKS["autoencoder"]) - absent.keys() == left | {"keras", "ours"}
        reasons = str(absent).lower()
        assert "torch" in reasons and ("bfloat16 is" in reasons) != has_bfloat16

    def test_frameworks_load_in_competitors_alone(self):
        """The driver needs none, and competitors come with a checkout of their choice."""
        code = (
            "import benchmarks.competitors\n"
            "assert 'cae' not in sys.modules\n"
            "import benchmarks.run\n"
            "assert not {'tensorflow', 'keras', 'torch', 'jax', 'matplotlib'} & set(sys.modules)"
        )
        subprocess.run(child(code), check=True)


class TestOutput:
    def test_table_fits_a_terminal(self):
        """80 columns, nothing cut."""
        big = {name: [12_345.6, 23_456.7] for name in results.NAMES}
        measurements = [
            Contest("autoencoder.medium.b128", "images/s", big),
            Contest("startup", "s", {"bad_configuration": [0.25, 0.35]}),
        ]
        console = Console(file=io.StringIO(), width=80)
        console.print(results.make_table(measurements))
        rows = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
        assert "autoencoder.medium.b128, images/s" in rows
        assert "PyTorch 17,901 12,346 to 23,457" in rows
        assert "bad_configuration 0.30 0.25 to 0.35" in rows
        assert "bf16.vs_torch_compile 1.000 1.000 to 1.000 1.000" in rows

    def test_figure_has_a_panel_for_each_size_and_batch(self):
        """Bars are fastest rounds; the lines on them reach to the median."""
        measurements = [
            Contest(f"autoencoder.{size}.b{batch}", "images/s", BF16_SPEEDS)
            for size in ("small", "large")
            for batch in (32, 128)
        ]
        measurements.append(Contest("evaluation", "images/s", SPEEDS))
        document = results.get_document(measurements)
        figure = results.plot_speeds(document["measurements"])
        titles = [ax.get_title(loc="left") for ax in figure.axes]
        assert titles == [f"{size}, batch {b}" for b in (32, 128) for size in ("small", "large")]
        ax = figure.axes[0]
        assert [bar.get_width() for bar in ax.patches] == [20.0, 40.0, 40.0, 20.0, 60.0]
        spread = ax.collections[0].get_segments()[0]
        assert spread[:, 0].tolist() == [15.0, 20.0]
        labels = [label.get_text() for label in ax.get_yticklabels()]
        assert labels == [results.NAMES[name] for name in BF16_SPEEDS]
        assert ax.get_xlim()[0] == 0 and ax.get_xlim()[1] > 60

    def test_no_bar_leaves_its_panel(self):
        """The panels of a size share one scale, also where larger batches are faster."""
        speeds = {32: {"keras": [10.0], "ours": [20.0]}, 128: {"keras": [15.0], "ours": [40.0]}}
        measurements = [
            Contest(f"autoencoder.small.b{batch}", "images/s", found)
            for batch, found in speeds.items()
        ]
        figure = results.plot_speeds(results.get_document(measurements)["measurements"])
        assert len(figure.axes) == 2
        for ax in figure.axes:
            assert ax.get_xlim()[0] == 0 and ax.get_xlim()[1] > 40

    def test_machine_names_its_instructions(self, tmp_path):
        """Ratios between competitors depend on them; other systems than Linux do not say."""
        cpuinfo = tmp_path / "cpuinfo"
        cpuinfo.write_text("model name\t: Fast One\nflags\t\t: fpu avx2 amx_bf16 avx512f\n\n" * 2)
        machine = results.describe_machine(cpuinfo)
        assert machine["processor"] == "Fast One"
        assert machine["instructions"] == ["avx2", "avx512f", "amx_bf16"]
        assert (machine["kind"], machine["has_bfloat16"]) == ("amx_bf16", True)
        none = results.describe_machine(tmp_path / "none")
        assert (none["instructions"], none["kind"], none["has_bfloat16"]) == ([], "unknown", False)


def test_fashion_mnist_from_its_package(tmp_path):
    """Seven images per class, 10 · class + place; six are for training. Empty rows do not count."""
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as package:
        for label in range(10):
            rows = [[10 * label + place] * 784 for place in range(7)]
            content = json.dumps({"data": [*rows[:3], [], *rows[3:]]}).encode()
            member = tarfile.TarInfo(f"package/src/clothes/{label}.json")
            member.size = len(content)
            package.addfile(member, io.BytesIO(content))
    command = [str(tmp_path / "package.tgz"), str(tmp_path / "fashion.npz")]
    assert fashion_mnist.main(command) == 0
    data = load_dataset(str(tmp_path / "fashion.npz"))
    assert data.images.shape == (60, 28, 28, 1)
    np.testing.assert_array_equal(data.images[:, 0, 0, 0] // 10, data.labels)
    assert set(data.images[:, 5, 5, 0] % 10) == set(range(6))
    np.testing.assert_array_equal(np.load(tmp_path / "fashion.npz")["x_test"][:, 0, 0] % 10, 6)
    assert fashion_mnist.main(command) == 2  # it is there already


def test_another_package_is_not_fashion_mnist(tmp_path, capsys):
    other, target = tmp_path / "other.tgz", tmp_path / "fashion.npz"
    with tarfile.open(other, "w:gz"):
        pass
    for package in (other, tmp_path / "none.tgz"):
        assert fashion_mnist.main([str(package), str(target)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(package) in line
    assert not target.exists()

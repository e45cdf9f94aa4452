"""Studies from their file to their table: trials, interruptions, failures, and what is kept."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from conftest import (
    AUTOENCODER,
    CLASSIFIER,
    ROOT,
    read_json,
    read_rows,
    run_program,
    wait_for,
    write_json,
)
from PIL import Image
from report_folders import make_start, table_of, trials_of, write_plan

from cae import terminal
from cae.config.load import load_config
from cae.config.study import expand, load_stages
from cae.data import stored
from cae.errors import UserError
from cae.files import locked
from cae.records.run import PARTIAL, FileRecord
from cae.studies import trials

compare = partial(run_program, "experiments", "compare")


class Trainer:
    """Stands in for the programs: writes the record of a run whose error is its learning rate."""

    def __init__(self):
        self.calls = []
        self.stop_at = self.fail_at = None
        self.values = {}  # by learning rate and seed, where they differ from that

    def __call__(self, kind, arguments, log, on_epoch):
        self.calls.append(arguments)
        resumed = arguments[0] == "--resume"
        path = Path(arguments[arguments.index("--resume" if resumed else "--run-dir") + 1])
        partial = path.with_name(path.name + PARTIAL)
        if not resumed:
            partial.mkdir()
            config = load_config(arguments[arguments.index("-c") + 1], "autoencoder")
            start = make_start("autoencoder", "x", config.model_dump(mode="json"))
            write_json(partial / "run.json", start.to_json())
            if self.stop_at == len(self.calls):
                return 130
            if self.fail_at == len(self.calls):
                shutil.rmtree(partial)
                log.write("error: the disk must have room, got none.\n")
                return 2
        config = read_json(partial / "run.json")["config"]
        rate, seed = config["optimizer"][1], config["seed"]
        value = self.values.get((rate, seed), rate + seed / 1000)
        metrics = {"val_mse": value, "best_epoch": 1, "seconds": 1.0, "parameters": 9}
        (partial / "metrics.json").write_text(json.dumps(metrics))
        (partial / "history.csv").write_text(f"epoch,phase,loss,val_mse\n1,full,{value},{value}\n")
        (partial / "model.keras").write_text("weights")
        partial.rename(path)
        return 0


@pytest.fixture
def trainer(monkeypatch):
    trainer = Trainer()
    monkeypatch.setattr(trials, "run_program", trainer)
    return trainer


@pytest.fixture
def study(tmp_path, files):
    """Three rates of one base; two seeds each."""
    return partial(write_plan, tmp_path, files.images)


@pytest.fixture
def run(tmp_path):
    def run(study, *args, runs="runs", plots=False):
        flags = [] if plots else ["--no-plots"]
        return run_program("experiments", "run", study, *flags, *args, runs_dir=tmp_path / runs)

    return run


def test_pictures_are_read_as_the_flags_say(study, run, trainer, tmp_path, monkeypatch):
    """By every trial; another size makes other trials, the same size is not trained again."""
    monkeypatch.setattr(stored, "DATA_DIR", tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for shade in range(4):
            Image.new("L", (12, 10), 60 * shade + (name == "dog")).save(
                tmp_path / "pictures" / name / f"{shade}.png"
            )
    flags = ["-d", tmp_path / "pictures", "--test-split", "0.5", "--image-size"]
    for size, count in (("8x8", 6), ("8x8", 6), ("12x8", 12)):
        assert run(study(), *flags, size).exit_code == 0
        assert len(trainer.calls) == count
    for arguments, size in zip(trainer.calls, ["8x8"] * 6 + ["12x8"] * 6, strict=True):
        assert arguments[arguments.index("--image-size") + 1] == size
        assert arguments[arguments.index("--test-split") + 1] == "0.5"


def test_every_trial_is_an_ordinary_run(study, run, trainer):
    """With a configuration file of its own, below the folder of the study."""
    done = run(study(), "--limit", 40, "--epochs", 3).ok()
    assert len(trainer.calls) == 6
    for trial, arguments in zip(trials_of(done.run), trainer.calls, strict=True):
        assert trial["status"] == "done"
        assert (done.run / trial["id"] / "metrics.json").exists()
        assert arguments[arguments.index("--limit") + 1] == "40"
        config = load_config(arguments[arguments.index("-c") + 1], "autoencoder")
        assert (config.epochs, config.seed) == (3, trial["seed"])
    assert len(table_of(done.run)) == 6
    assert "[6/6]" in done.err and "best so far 0.01 (base-learning_rate=0.01)" in done.err


def test_only_the_best_model_of_a_base_stays(study, run, trainer):
    """Unless all are asked for."""
    done = run(study())
    kept = [path.parent.name for path in done.run.glob("*/model.keras")]
    assert len(kept) == 1 and kept[0].startswith("base-learning_rate=0.01-seed0")
    done = run(study(), "--keep", "all", runs="all")
    assert len([*done.run.glob("*/model.keras")]) == 6


def test_the_best_trial_is_trained_again_where_its_model_was_deleted(study, run, trainer):
    """With more seeds another configuration may be the best."""
    done = run(study(seeds=1))
    (kept,) = done.run.glob("*/model.keras")
    assert kept.parent.name.startswith("base-learning_rate=0.01-seed0")
    trainer.calls.clear()
    trainer.values = {(0.01, 1): 0.9}
    assert run(study(seeds=2)).exit_code == 0
    (kept,) = done.run.glob("*/model.keras")
    assert kept.parent.name.startswith("base-learning_rate=0.02-seed0")
    assert len(trainer.calls) == 3 + 1
    trainer.calls.clear()
    run(study(seeds=2))
    assert trainer.calls == []


@pytest.mark.parametrize(("moment", "exit_code"), [("fail_at", 2), ("stop_at", 130)])
def test_a_trial_that_cannot_be_trained_again_keeps_its_record(
    study, run, trainer, moment, exit_code
):
    """After three trials and three more of another seed; the next start trains it again."""
    done = run(study(seeds=1))
    trainer.values = {(0.01, 1): 0.9}
    setattr(trainer, moment, 3 + 3 + 1)
    failed = run(study(seeds=2))
    assert failed.exit_code == exit_code and ("failed: base-" in failed.err) == (exit_code == 2)
    assert {trial["status"] for trial in trials_of(done.run)} == {"done"}
    assert not [*done.run.glob("*.replaced")] and not [*done.run.glob("*0.02-seed0*/model.keras")]
    setattr(trainer, moment, None)
    assert run(study(seeds=2)).exit_code == 0
    (kept,) = done.run.glob("*/model.keras")
    assert kept.parent.name.startswith("base-learning_rate=0.02-seed0")


def test_screening(study, run, trainer, tmp_path):
    """All configurations on few images; the best of each base in full, with all seeds."""
    screening = {"finalists": 2, "limit": 20, "epochs": 3}
    run(study(screening=screening, epochs=7)).ok()
    first, second = (trials_of(tmp_path / "runs" / name) for name in ("tiny-screening", "tiny"))
    found = [[(t["configuration"][-4:], t["seed"]) for t in trials] for trials in (first, second)]
    assert found[0] == [("0.02", 0), ("0.01", 0), ("0.03", 0)]
    assert found[1] == [("0.02", 0), ("0.02", 1), ("0.01", 0), ("0.01", 1)]
    configs = [load_config(call[call.index("-c") + 1], "autoencoder") for call in trainer.calls]
    assert [config.epochs for config in configs] == [3] * 3 + [7] * 4
    assert ["--limit" in call for call in trainer.calls] == [True] * 3 + [False] * 4
    trainer.calls.clear()
    run(study(screening=screening, epochs=7))
    assert trainer.calls == []


def test_a_configuration_that_fails_in_the_screening_is_out(study, run, trainer, tmp_path):
    trainer.fail_at = 2
    run(study(screening={"finalists": 3, "limit": 20}, seeds=1)).refused()
    rates = [t["configuration"][-4:] for t in trials_of(tmp_path / "runs" / "tiny")]
    assert rates == ["0.02", "0.03"]


def test_a_study_runs_once_at_a_time(study, run, trainer, tmp_path):
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    with locked(folder):
        done = run(study())
    assert done.exit_code == 2 and trainer.calls == []
    assert f"error: {folder}: " in done.err and str(os.getpid()) in done.err
    assert run(study()).exit_code == 0


def test_what_is_done_is_not_repeated(study, run, trainer):
    """A second start trains only what a changed study adds, and shows all of it."""
    folder = run(study()).run
    assert len(table_of(folder)) == 3 * 2
    trainer.calls.clear()
    assert run(study()).exit_code == 0
    assert trainer.calls == []
    run(study(seeds=3)).ok()
    assert len(trainer.calls) == 3
    assert len(table_of(folder)) == 3 * 3


def test_an_interrupted_study_resumes_to_the_same_table(study, run, trainer, tmp_path):
    """The trial that was stopped is resumed; those before it stay."""
    run(study(), runs="whole")
    trainer.calls.clear()
    trainer.stop_at = 3
    stopped = run(study(), runs="stopped")
    assert stopped.exit_code == 130
    assert "python experiments.py run" in stopped.err
    assert len(trainer.calls) == 3
    assert run(study(), runs="stopped").exit_code == 0
    assert trainer.calls[3][0] == "--resume"
    assert len(trainer.calls) == 7
    assert table_of(tmp_path / "stopped" / "tiny") == table_of(tmp_path / "whole" / "tiny")


def test_a_failed_trial_does_not_stop_the_others(study, run, trainer):
    """Its reason is recorded, and it is tried again in the next start."""
    trainer.fail_at = 2
    done = run(study()).refused()
    failed = [trial for trial in trials_of(done.run) if trial["status"] == "failed"]
    assert [trial["reason"] for trial in failed] == ["the disk must have room, got none."]
    assert len(table_of(done.run)) == 5
    assert f"failed: {failed[0]['id']}: the disk must have room" in done.err
    trainer.fail_at = None
    assert run(study()).exit_code == 0
    assert len(trainer.calls) == 7


def test_a_trial_that_breaks_is_a_failed_trial(tmp_path, monkeypatch):
    """Whatever is raised becomes the reason, on one line."""

    class Broken:
        @staticmethod
        def main(arguments, on_epoch):
            raise MemoryError("no\nmemory")

    monkeypatch.setattr(trials.importlib, "import_module", lambda name: Broken)
    with (tmp_path / "log.txt").open("w+") as log:
        assert trials.run_program("autoencoder", [], log) == 2
        log.seek(0)
        assert log.read() == "error: MemoryError: no memory\n"


def test_nothing_is_trained_when_the_last_stage_is_wrong(study, run, trainer, tmp_path):
    """All stages are checked first."""
    study()
    changes = {"name": "last", "vary": {"grid": {"l2": [7]}}}
    write_json(tmp_path / "last.json", read_json(tmp_path / "study.json"), changes)
    chain = {"name": "all", "kind": "chain", "stages": ["study.json", "last.json"]}
    run(write_json(tmp_path / "chain.json", chain)).refused(
        "vary (base-l2=7): l2: must be a number from 0 to 1"
    )
    assert trainer.calls == []


def test_encoders_of_a_study_that_has_not_run(tmp_path, run, files):
    write_json(tmp_path / "head.json", CLASSIFIER)
    encoder = {"study": "autoencoders", "base": "base"}
    heads = {"name": "heads", "kind": "classifier", "metric": "val_accuracy"}
    data = {"dataset": str(files.images), "labels": str(files.labels)}
    bases = [{"configuration": "head.json", "encoder": encoder}]
    path = write_json(tmp_path / "study.json", heads, data=data, bases=bases)
    run(path).refused("Run the study autoencoders first")


def test_saved_models_of_other_programs(tmp_path):
    """Their flags are keys of a base, pass to its trials, and tell its trials from others."""
    write_json(tmp_path / "head.json", CLASSIFIER)
    (tmp_path / "configuration").mkdir()
    base = {"configuration": "head.json", "model": "other.h5"}
    keys = {"encoder_until": "bottom", "model_input_range": "-1..1"}
    study = {"name": "heads", "kind": "classifier", "data": {"dataset": "digits"}}
    study["metric"] = "val_accuracy"
    found = []
    for bases in ([base], [base | keys]):
        _, (file,) = load_stages(write_json(tmp_path / "study.json", study, bases=bases))
        (trial,) = expand(file, "data", {"head": ("other.h5", "sha")})
        found.append((trial.id, trials.TrialTrainer(file.study, tmp_path).get_arguments(trial)))
    (plain, without), (other, arguments) = found
    assert plain != other and "--encoder-until" not in without
    assert arguments[arguments.index("--encoder-until") + 1] == "bottom"
    assert arguments[arguments.index("--model-input-range") + 1] == "-1..1"
    path = write_json(
        tmp_path / "study.json", study, bases=[{"configuration": "head.json", **keys}]
    )
    with pytest.raises(UserError, match='must have a "model"'):
        load_stages(path)


def test_an_autoencoder_learns_from_all_images_if_others_test(tmp_path):
    """None of a folder are set apart: the test images are elsewhere."""
    for name in ("pictures", "configuration"):
        (tmp_path / name).mkdir()
    data = {"dataset": str(tmp_path / "pictures"), "test": str(tmp_path / "others")}
    write_json(tmp_path / "base.json", AUTOENCODER)
    study = {"name": "s", "kind": "autoencoder", "data": data, "metric": "val_mse"}
    study["bases"] = [{"configuration": "base.json"}]
    _, (file,) = load_stages(write_json(tmp_path / "study.json", study))
    (trial,) = expand(file, "data", {})
    arguments = trials.TrialTrainer(file.study, tmp_path).get_arguments(trial)
    assert arguments[arguments.index("--test-split") + 1] == "0.0" and "-t" not in arguments


def test_few_labels(tmp_path):
    """The number of labels is a flag of every classifier, and none of an autoencoder."""
    found = []
    for kind, config in (("classifier", CLASSIFIER), ("autoencoder", AUTOENCODER)):
        base = write_json(tmp_path / f"{kind}.json", config)
        data = {"dataset": "digits", "labels_per_class": 10, "unlabelled": "digits"}
        study = {"name": "few", "kind": kind, "data": data, "bases": [{"configuration": base}]}
        study["metric"] = "val_loss"
        _, (file,) = load_stages(write_json(tmp_path / "study.json", study))
        (tmp_path / kind / "configuration").mkdir(parents=True)
        for trial in expand(file, "data", {kind: (None, None)}):
            found.append(trials.TrialTrainer(file.study, tmp_path / kind).get_arguments(trial))
    classifier, autoencoder = found
    assert classifier[classifier.index("--labels-per-class") + 1] == "10"
    assert "--labels-per-class" not in autoencoder
    assert "--unlabelled" not in [*classifier, *autoencoder], "the configuration does not use them"


def test_changed_images(study, run, trainer):
    """The flags pass to the trials, whose names tell them from others."""
    run(study(), "--invert", "--transpose", "train", "--limit", 40).ok()
    calls = list(trainer.calls)
    for arguments in calls:
        assert arguments[arguments.index("--invert") + 1] == "all"
        assert arguments[arguments.index("--transpose") + 1] == "train"
    run(study(), "--limit", 40)
    assert len(trainer.calls) == 2 * len(calls)


def test_compare_sorts_and_writes(study, run, trainer, tmp_path):
    """Over the study's folder or over its runs: the same runs, the same table."""
    done = run(study())
    runs = [done.run / trial["id"] for trial in trials_of(done.run)]
    table = tmp_path / "table.csv"
    out = compare(done.run, "--csv", table, "--sort", "name").ok().out
    assert out.index("learning_rate=0.01") < out.index("learning_rate=0.02")
    assert table.read_bytes() == (done.run / "results.csv").read_bytes()
    assert "0.0105" in compare(*runs).ok().out  # the mean of 0.01 and 0.011
    for path in (table, tmp_path / "missing" / "table.csv"):
        assert compare(*runs, "--csv", path).refused(str(path.parent)).out == ""


def test_names_are_shown_in_full(study, run, trainer, screen):
    """In a file on one line, on a narrow terminal folded."""
    done = run(study())
    assert "│ learning_rate=0.02 │" in done.out
    shown = screen(80)
    compare(done.run).ok()
    table = shown.getvalue().rpartition("┘")[0]
    assert "…" not in table and max(map(len, table.splitlines())) <= 80


def test_a_table_too_wide_for_the_terminal(screen):
    """Where numbers would be cut, each row is a list; numbers and names stay whole."""
    # 12 for the name, 8 for each number, 3 between columns and 4 at the ends.
    row = {"name": "autoencoder_large", "mean": "0.012345", "low": "0.010000", "high": "0.014000"}
    narrow = screen(48)
    terminal.print_rows("Comparison", [row], ("mean", "low", "high"))
    lines = [line.split() for line in narrow.getvalue().splitlines()]
    assert lines == [["Comparison"], *map(list, row.items())]
    wider = screen(49)
    terminal.print_rows("Comparison", [row], ("mean", "low", "high"))
    assert "│ 0.012345 │ 0.010000 │ 0.014000 │" in wider.getvalue()


@pytest.fixture
def recorded(tmp_path):
    """Writes the record of a run of the configuration `tiny`."""

    def write(name, value, data="a", started="2026-01-01T00:00:00", flags=(), **config):
        folder = tmp_path / name
        folder.mkdir()
        file = FileRecord(path=f"{data}.idx", sha256=data * 64, bytes=1)
        changes = {"started": started, "data": {"training": [file]}}
        start = make_start("autoencoder", "tiny", AUTOENCODER | config, flags, **changes)
        write_json(folder / "run.json", start.to_json())
        write_json(folder / "metrics.json", {"val_mse": value, "best_epoch": 1})
        (folder / "history.csv").write_text("epoch,phase,loss\n1,full,0.5\n")
        return str(folder)

    return write


@pytest.fixture
def compared(tmp_path):
    """Compares runs; returns the program, and the configuration of each run in its table."""

    def compared(*runs):
        done = compare(*runs, "--csv", tmp_path / "compared.csv").ok()
        rows = read_rows(tmp_path / "compared.csv")
        return done, {row["run"]: row["configuration"] for row in rows}

    return compared


def test_runs_of_one_name_are_averaged_only_if_their_seeds_alone_differ(recorded, compared):
    """Two seeds of 0.25 and 0.75 have the mean 0.5; flags, epochs and layers make other groups."""
    done, rows = compared(
        recorded("one", 0.25, seed=1),
        recorded("two", 0.75, seed=2),
        recorded("few", 0.125, flags={"limit": 10}, seed=1),
        recorded("fresh", 0.9375, flags={"no_pretrained": True}, seed=1),
        recorded("long", 0.0625, epochs=9, seed=1),
        recorded("decayed", 0.875, l2=0.5, seed=1),
    )
    assert rows["one"] == rows["two"]
    assert len(set(rows.values())) == 5
    lines = [line.split("│") for line in done.out.splitlines() if line.startswith("│ tiny")]
    assert [cells[3].strip() for cells in lines] == ["0.0625", "0.125", "0.5", "0.875", "0.9375"]


def test_data_sets_are_not_ranked_together(recorded, compared):
    """One table and one verdict for each."""
    done, _ = compared(recorded("one", 0.25, data="a"), recorded("two", 0.75, data="b"))
    assert done.out.count("the only one") == 2
    assert "on a.idx (aaaaaaaa): " in done.out and "on b.idx (bbbbbbbb): " in done.out


def test_the_latest_run_of_a_seed_counts(recorded, compared):
    """Whatever the order; the earlier one, and a run named twice, are no further seeds."""
    late = recorded("late", 0.25, started="2026-01-02T00:00:00")
    done, rows = compared(late, recorded("early", 0.75), late)
    assert list(rows) == ["late"]
    assert "early" in done.err and "late:" not in done.err


def test_what_is_no_complete_run_is_named_and_left_out(recorded, compared, tmp_path):
    run = recorded("one", 0.25)
    interrupted = recorded(f"two{PARTIAL}", 0.5, seed=2)  # stopped before it was renamed
    (tmp_path / "empty").mkdir()
    others = [interrupted, str(tmp_path / "empty")]
    done, rows = compared(run, *others)
    assert list(rows) == ["one"]
    assert all(name in " ".join(done.err.split()) for name in others)
    compare(*others).refused(*others)


def test_figures_of_a_comparison(recorded, tmp_path):
    """In a new folder; one for each data set if there are several."""
    one, two, other = (
        recorded(name, value, data=data, seed=seed)
        for name, value, data, seed in (
            ("one", 0.25, "a", 1),
            ("two", 0.5, "a", 2),
            ("other", 0.5, "b", 1),
        )
    )
    done = compare(one, two, "--figures", tmp_path / "drawn").ok()
    drawn = [path.name for path in (tmp_path / "drawn").iterdir()]
    assert "comparison.png" in drawn and all(name in done.out for name in drawn)
    compare(one, other, "--figures", tmp_path / "both").ok()
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"data-1", "data-2"}
    compare(one, "--figures", tmp_path / "drawn").refused("--figures", "drawn")


def test_epochs_that_a_study_varies_have_no_flag(study, run, trainer):
    vary = {"grid": {"epochs": [1, 2]}}
    run(study(vary=vary), "--epochs", 3).refused("--epochs", "varies epochs")
    assert not trainer.calls


def test_compare_refuses_what_is_no_run(tmp_path):
    compare(tmp_path).refused("must be a complete run, got no metrics.json in it")
    (tmp_path / "metrics.json").write_text("{}")  # as in a folder of predict.py evaluate
    compare(tmp_path).refused("must be a complete run, got no run.json in it")


def test_a_damaged_record_of_a_study(tmp_path):
    (tmp_path / "trials.json").write_text('{"metric": "val_mse"}')
    compare(tmp_path).refused("trials.json")


def test_flags_have_subcommands(study, run):
    """A flag of a subcommand is found by its nearest name."""
    run(study(), "--epoch", "3").refused("Did you mean --epochs?")
    run(study(), "-dl", "labels").refused("-dl")


@pytest.mark.slow
def test_a_chain_from_images_to_the_best_classifier(tmp_path, files, run, monkeypatch):
    """Really trained, and stopped by Ctrl-C in the second trial: the same table in the end."""
    from cae.training import predict as predict_module

    write_json(tmp_path / "head.json", CLASSIFIER)
    data = {"dataset": str(files.images), "labels": str(files.labels)}
    test = {"test": str(files.test), "test_labels": str(files.test_labels)}
    rates = {"grid": {"learning_rate": [0.01, 0.003]}}
    encoders = write_plan(tmp_path, files.images, vary=rates, seeds=1, name="encoders", data=data)
    Path(encoders).rename(tmp_path / "encoders.json")
    heads = {"name": "heads", "kind": "classifier", "metric": "val_accuracy", "seeds": 2}
    base = {"configuration": "head.json", "encoder": {"study": "encoders", "base": "base"}}
    write_json(tmp_path / "heads.json", heads, data=data | test, bases=[base])
    chain = {"name": "both", "kind": "chain", "stages": ["encoders.json", "heads.json"]}
    path = write_json(tmp_path / "chain.json", chain)
    encoded = []
    predict = predict_module.predict

    def count(network, *args):
        encoded.append(network.name)
        return predict(network, *args)

    monkeypatch.setattr(predict_module, "predict", count)
    whole = run(path, "--epochs", 2, runs="whole", plots=True).ok()
    assert encoded.count("encoder") == 1  # for both seeds
    heads = whole.run / "heads"
    drawn = {path.stem for path in (heads / "plots").iterdir()}
    assert {"comparison", "final_values", "costs", "history", "confusion_matrix"} < drawn
    assert "macro avg" in whole.out
    encoders = {trial["encoder"] for trial in trials_of(heads)}
    assert len(encoders) == 1 and Path(encoders.pop()).exists()

    from cae.training.callbacks import ShowProgress

    epochs = []
    on_epoch_end = ShowProgress.on_epoch_end

    def stop_in_the_second_trial(self, epoch, logs):
        on_epoch_end(self, epoch, logs)
        epochs.append(epoch)
        if len(epochs) == 3:  # the first epoch of the second trial
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ShowProgress, "on_epoch_end", stop_in_the_second_trial)
    assert run(path, "--epochs", 2, runs="stopped").exit_code == 130
    assert run(path, "--epochs", 2, runs="stopped").exit_code == 0
    assert len(epochs) == 4 + 2 * 4  # none of them twice
    for stage in ("encoders", "heads"):
        tables = [table_of(folder / stage) for folder in (whole.run, tmp_path / "stopped" / "both")]
        for row in tables[0] + tables[1]:
            row.pop("run")  # named after the encoder's file, which holds the time of its writing
        assert tables[0] == tables[1]


@pytest.mark.slow
def test_a_killed_study_ends_in_the_same_table(tmp_path, files, run):
    """Killed without a chance to say goodbye, in the middle of its second trial."""
    rates = {"grid": {"learning_rate": [0.01, 0.003, 0.001]}}
    path = write_plan(tmp_path, files.images, epochs=300, vary=rates, seeds=1, name="rates")
    whole = run(path, runs="whole")
    killed = tmp_path / "killed" / "rates"
    command = [sys.executable, "experiments.py", "run", path, "--no-plots"]
    program = subprocess.Popen(
        [*command, "--runs-dir", str(killed.parent)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: any(killed.glob("*/metrics.json")), program)
        wait_for(lambda: any(killed.glob(f"*{PARTIAL}/checkpoint.npz")), program)
    finally:
        program.kill()
        program.wait()
    done = len([*killed.glob("*/metrics.json")])
    assert 1 <= done < 3
    assert run(path, runs="killed").exit_code == 0
    assert table_of(killed) == table_of(whole.run)

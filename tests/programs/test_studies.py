"""Studies run to their table: trials, screening, interruptions, failures, and what is kept."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CLASSIFIER, ROOT, read_json, wait_for, write_json
from PIL import Image
from report_folders import table_of, trials_of, write_plan

from cae.config.load import load_config
from cae.data import stored
from cae.files import locked
from cae.records.run import PARTIAL


def test_pictures_are_read_as_the_flags_say(study, run_study, trainer, tmp_path, monkeypatch):
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
        assert run_study(study(), *flags, size).exit_code == 0
        assert len(trainer.calls) == count
    for arguments, size in zip(trainer.calls, ["8x8"] * 6 + ["12x8"] * 6, strict=True):
        assert arguments[arguments.index("--image-size") + 1] == size
        assert arguments[arguments.index("--test-split") + 1] == "0.5"


def test_every_trial_is_an_ordinary_run(study, run_study, trainer):
    """With a configuration file of its own, below the folder of the study."""
    done = run_study(study(), "--limit", 40, "--epochs", 3).ok()
    assert len(trainer.calls) == 6
    for trial, arguments in zip(trials_of(done.run), trainer.calls, strict=True):
        assert trial["status"] == "done"
        assert (done.run / trial["id"] / "metrics.json").exists()
        assert arguments[arguments.index("--limit") + 1] == "40"
        config = load_config(arguments[arguments.index("-c") + 1], "autoencoder")
        assert (config.epochs, config.seed) == (3, trial["seed"])
    assert len(table_of(done.run)) == 6
    assert "[6/6]" in done.err and "best so far 0.01 (base-learning_rate=0.01)" in done.err


def test_only_the_best_model_of_a_base_stays(study, run_study, trainer):
    """Unless all are asked for."""
    done = run_study(study())
    kept = [path.parent.name for path in done.run.glob("*/model.keras")]
    assert len(kept) == 1 and kept[0].startswith("base-learning_rate=0.01-seed0")
    done = run_study(study(), "--keep", "all", runs="all")
    assert len([*done.run.glob("*/model.keras")]) == 6


def test_the_best_trial_is_trained_again_where_its_model_was_deleted(study, run_study, trainer):
    """With more seeds another configuration may be the best."""
    done = run_study(study(seeds=1))
    (kept,) = done.run.glob("*/model.keras")
    assert kept.parent.name.startswith("base-learning_rate=0.01-seed0")
    trainer.calls.clear()
    trainer.values = {(0.01, 1): 0.9}
    assert run_study(study(seeds=2)).exit_code == 0
    (kept,) = done.run.glob("*/model.keras")
    assert kept.parent.name.startswith("base-learning_rate=0.02-seed0")
    assert len(trainer.calls) == 3 + 1
    trainer.calls.clear()
    run_study(study(seeds=2))
    assert trainer.calls == []


@pytest.mark.parametrize(("moment", "exit_code"), [("fail_at", 2), ("stop_at", 130)])
def test_a_trial_that_cannot_be_trained_again_keeps_its_record(
    study, run_study, trainer, moment, exit_code
):
    """After three trials and three more of another seed; the next start trains it again."""
    done = run_study(study(seeds=1))
    trainer.values = {(0.01, 1): 0.9}
    setattr(trainer, moment, 3 + 3 + 1)
    failed = run_study(study(seeds=2))
    assert failed.exit_code == exit_code and ("failed: base-" in failed.err) == (exit_code == 2)
    assert {trial["status"] for trial in trials_of(done.run)} == {"done"}
    assert not [*done.run.glob("*.replaced")] and not [*done.run.glob("*0.02-seed0*/model.keras")]
    setattr(trainer, moment, None)
    assert run_study(study(seeds=2)).exit_code == 0
    (kept,) = done.run.glob("*/model.keras")
    assert kept.parent.name.startswith("base-learning_rate=0.02-seed0")


def test_screening(study, run_study, trainer, tmp_path):
    """All configurations on few images; the best of each base in full, with all seeds."""
    screening = {"finalists": 2, "limit": 20, "epochs": 3}
    run_study(study(screening=screening, epochs=7)).ok()
    first, second = (trials_of(tmp_path / "runs" / name) for name in ("tiny-screening", "tiny"))
    found = [[(t["configuration"][-4:], t["seed"]) for t in trials] for trials in (first, second)]
    assert found[0] == [("0.02", 0), ("0.01", 0), ("0.03", 0)]
    assert found[1] == [("0.02", 0), ("0.02", 1), ("0.01", 0), ("0.01", 1)]
    configs = [load_config(call[call.index("-c") + 1], "autoencoder") for call in trainer.calls]
    assert [config.epochs for config in configs] == [3] * 3 + [7] * 4
    assert ["--limit" in call for call in trainer.calls] == [True] * 3 + [False] * 4
    trainer.calls.clear()
    run_study(study(screening=screening, epochs=7))
    assert trainer.calls == []


def test_a_configuration_that_fails_in_the_screening_is_out(study, run_study, trainer, tmp_path):
    trainer.fail_at = 2
    run_study(study(screening={"finalists": 3, "limit": 20}, seeds=1)).refused()
    rates = [t["configuration"][-4:] for t in trials_of(tmp_path / "runs" / "tiny")]
    assert rates == ["0.02", "0.03"]


def test_a_study_runs_once_at_a_time(study, run_study, trainer, tmp_path):
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    with locked(folder):
        done = run_study(study())
    assert done.exit_code == 2 and trainer.calls == []
    assert f"error: {folder}: " in done.err and str(os.getpid()) in done.err
    assert run_study(study()).exit_code == 0


def test_what_is_done_is_not_repeated(study, run_study, trainer):
    """A second start trains only what a changed study adds, and shows all of it."""
    folder = run_study(study()).run
    assert len(table_of(folder)) == 3 * 2
    trainer.calls.clear()
    assert run_study(study()).exit_code == 0
    assert trainer.calls == []
    run_study(study(seeds=3)).ok()
    assert len(trainer.calls) == 3
    assert len(table_of(folder)) == 3 * 3


def test_an_interrupted_study_resumes_to_the_same_table(study, run_study, trainer, tmp_path):
    """The trial that was stopped is resumed; those before it stay."""
    run_study(study(), runs="whole")
    trainer.calls.clear()
    trainer.stop_at = 3
    stopped = run_study(study(), runs="stopped")
    assert stopped.exit_code == 130
    assert "python experiments.py run" in stopped.err
    assert len(trainer.calls) == 3
    assert run_study(study(), runs="stopped").exit_code == 0
    assert trainer.calls[3][0] == "--resume"
    assert len(trainer.calls) == 7
    assert table_of(tmp_path / "stopped" / "tiny") == table_of(tmp_path / "whole" / "tiny")


def test_a_failed_trial_does_not_stop_the_others(study, run_study, trainer):
    """Its reason is recorded, and it is tried again in the next start."""
    trainer.fail_at = 2
    done = run_study(study()).refused()
    failed = [trial for trial in trials_of(done.run) if trial["status"] == "failed"]
    assert [trial["reason"] for trial in failed] == ["the disk must have room, got none."]
    assert len(table_of(done.run)) == 5
    assert f"failed: {failed[0]['id']}: the disk must have room" in done.err
    trainer.fail_at = None
    assert run_study(study()).exit_code == 0
    assert len(trainer.calls) == 7


def test_nothing_is_trained_when_the_last_stage_is_wrong(study, run_study, trainer, tmp_path):
    """All stages are checked first."""
    study()
    changes = {"name": "last", "vary": {"grid": {"l2": [7]}}}
    write_json(tmp_path / "last.json", read_json(tmp_path / "study.json"), changes)
    chain = {"name": "all", "kind": "chain", "stages": ["study.json", "last.json"]}
    run_study(write_json(tmp_path / "chain.json", chain)).refused(
        "vary (base-l2=7): l2: must be a number from 0 to 1"
    )
    assert trainer.calls == []


def test_encoders_of_a_study_that_has_not_run(tmp_path, run_study, files):
    write_json(tmp_path / "head.json", CLASSIFIER)
    encoder = {"study": "autoencoders", "base": "base"}
    heads = {"name": "heads", "kind": "classifier", "metric": "val_accuracy"}
    data = {"dataset": str(files.images), "labels": str(files.labels)}
    bases = [{"configuration": "head.json", "encoder": encoder}]
    path = write_json(tmp_path / "study.json", heads, data=data, bases=bases)
    run_study(path).refused("Run the study autoencoders first")


def test_changed_images(study, run_study, trainer):
    """The flags pass to the trials, whose names tell them from others."""
    run_study(study(), "--invert", "--transpose", "train", "--limit", 40).ok()
    calls = list(trainer.calls)
    for arguments in calls:
        assert arguments[arguments.index("--invert") + 1] == "all"
        assert arguments[arguments.index("--transpose") + 1] == "train"
    run_study(study(), "--limit", 40)
    assert len(trainer.calls) == 2 * len(calls)


def test_epochs_that_a_study_varies_have_no_flag(study, run_study, trainer):
    vary = {"grid": {"epochs": [1, 2]}}
    run_study(study(vary=vary), "--epochs", 3).refused("--epochs", "varies epochs")
    assert not trainer.calls


def test_flags_have_subcommands(study, run_study):
    """A flag of a subcommand is found by its nearest name."""
    run_study(study(), "--epoch", "3").refused("Did you mean --epochs?")
    run_study(study(), "-dl", "labels").refused("-dl")


@pytest.mark.slow
def test_a_chain_from_images_to_the_best_classifier(tmp_path, files, run_study, monkeypatch):
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
    whole = run_study(path, "--epochs", 2, runs="whole", plots=True).ok()
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
    assert run_study(path, "--epochs", 2, runs="stopped").exit_code == 130
    assert run_study(path, "--epochs", 2, runs="stopped").exit_code == 0
    assert len(epochs) == 4 + 2 * 4  # none of them twice
    for stage in ("encoders", "heads"):
        tables = [table_of(folder / stage) for folder in (whole.run, tmp_path / "stopped" / "both")]
        for row in tables[0] + tables[1]:
            row.pop("run")  # named after the encoder's file, which holds the time of its writing
        assert tables[0] == tables[1]


@pytest.mark.slow
def test_a_killed_study_ends_in_the_same_table(tmp_path, files, run_study):
    """Killed without a chance to say goodbye, in the middle of its second trial."""
    rates = {"grid": {"learning_rate": [0.01, 0.003, 0.001]}}
    path = write_plan(tmp_path, files.images, epochs=300, vary=rates, seeds=1, name="rates")
    whole = run_study(path, runs="whole")
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
    assert run_study(path, runs="killed").exit_code == 0
    assert table_of(killed) == table_of(whole.run)

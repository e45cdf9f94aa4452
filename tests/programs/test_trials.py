"""A trial of a study is the command line of its program, and fails alone."""

import pytest
from conftest import AUTOENCODER, CLASSIFIER, write_json

from cae.config.study import expand, load_stages
from cae.errors import UserError
from cae.studies import trials


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

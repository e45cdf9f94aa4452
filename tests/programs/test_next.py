"""Every line `Next:` is a command that works in the folder where it is printed."""

import importlib
import io
import re
import shlex
import sys
from pathlib import Path

import pytest
from conftest import AUTOENCODER, CLASSIFIER, ROOT, write_dataset, write_json
from picture_folders import fill


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder outside the checkout, with images and configurations."""
    monkeypatch.chdir(tmp_path)
    write_dataset(Path("data"))
    write_json(Path("tiny.json"), AUTOENCODER)
    write_json(Path("head.json"), CLASSIFIER)


@pytest.fixture
def run(elsewhere, capfd):
    """Runs a command line, checks that it succeeds, and returns its output and what it names."""

    def start(line):
        python, program, *arguments = shlex.split(line)
        assert python == "python" and Path(program).exists()
        for word in arguments:
            assert "/" not in word or Path(word).exists(), f"{line} names {word}"
        assert importlib.import_module(Path(program).stem).main(arguments) == 0
        out = capfd.readouterr().out
        return out, re.findall(r"^Next: (.*)$", out, re.MULTILINE)

    return start


AUTOENCODER_LINE = f"python {ROOT}/autoencoder.py -d data/images --no-plots -c tiny.json"


def test_from_an_autoencoder_to_a_test(run):
    """It names a training, which names a test."""
    _, (training,) = run(f"{AUTOENCODER_LINE} -dl data/labels")
    assert "classification.py" in training
    _, (next_one,) = run(f"{training} --no-plots --epochs 1")
    assert "predict.py show" in next_one, "no test images were given"
    assert "classifier_small_small" in run(next_one)[0]


def test_of_images_of_one_class(run):
    """There is nothing to classify."""
    fill(Path("pictures"), {"only": 30})
    _, (next_one,) = run(f"python {ROOT}/autoencoder.py -d pictures --no-plots -c tiny.json")
    assert "predict.py show" in next_one


def test_of_inverted_training_images(run):
    """Test images stay as they are in the next program, too."""
    _, (training,) = run(f"{AUTOENCODER_LINE} -dl data/labels --invert train")
    assert "--invert train" in training


def test_of_a_classifier_with_test_images(run, monkeypatch):
    """The test is that of the training; the menu offers the same, and names the same command."""
    _, (_,) = run(f"{AUTOENCODER_LINE} -dl data/labels --save encoder.keras")
    line = f"python {ROOT}/classification.py -d data/images -dl data/labels -model encoder.keras"
    test = "-t data/test -tl data/test_labels"
    out, (testing,) = run(f"{line} {test} -c head.json --no-plots --save head.keras")
    assert "predict.py evaluate head.keras" in testing and testing.endswith(test)
    out, further = run(testing)
    assert "macro avg" in out and not further
    assert not list(Path("runs").glob("*test*/model.keras")), "nothing is trained"

    # The menu of a trained classifier: test, train another, exit.
    monkeypatch.setattr(sys, "stdin", io.StringIO("1\n2\n1\nhead.json\n5\n"))
    line = line.replace("encoder.keras", "head.keras")
    out, (testing,) = run(f"{line} {test} --no-plots")
    assert out.index("macro avg") < out.index("Hyperparameters of the classifier")
    assert "macro avg" in run(testing)[0]


def test_of_a_classifier_whose_classes_were_named(run):
    """The model knows their names, so the test is not told."""
    _, (_,) = run(f"{AUTOENCODER_LINE} -dl data/labels --save encoder.keras")
    line = f"python {ROOT}/classification.py -d data/images -dl data/labels -model encoder.keras"
    test = "-t data/test -tl data/test_labels"
    _, (testing,) = run(f"{line} {test} --class-names ape,bee,cat -c head.json --no-plots")
    out, _ = run(testing)
    assert "bee" in out and "unseen" not in out


def test_of_images_without_labels(run):
    _, (next_one,) = run(AUTOENCODER_LINE)
    assert "Conv2D" in run(next_one)[0]

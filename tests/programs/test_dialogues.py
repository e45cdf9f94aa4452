"""The questions of both programs: at a real terminal, and with the answers piped in."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pexpect
import pytest
from conftest import AUTOENCODER, CLASSIFIER, ROOT, read_json, write_json

import autoencoder
import classification
from cae import terminal as terminal_module
from cae.config.load import load_config, validate_config
from cae.programs.questions import Latest, ask_config
from cae.records.saved_models import read_metadata
from cae.records.shelf import find_models

MENU = "What next: "
CURSOR_SHOWN, CURSOR_HIDDEN = "\x1b[?25h", "\x1b[?25l"


class Terminal:
    """A program at a pseudo-terminal."""

    def __init__(self, folder, program, *args):
        self.child = pexpect.spawn(
            sys.executable,
            [str(ROOT / f"{program}.py"), *map(str, args)],
            cwd=folder,
            env=dict(os.environ),  # without the COLUMNS that readline adds behind Python's back
            # Tests that run in the background of a shell ignore Ctrl-C, and so would the program.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            encoding="utf-8",
            timeout=200,
            dimensions=(40, 200),
        )
        self.output = self.child.logfile_read = io.StringIO()

    def answer(self, question, *answers):
        """Answers a question; before that wrongly, each time with words that explain it."""
        *wrong, right = answers
        for text, words in wrong:
            self.child.expect_exact(question)
            self.child.sendline(text)
            self.child.expect_exact(words)
        self.child.expect_exact(question)
        self.child.sendline(right)

    def says(self, words):
        self.child.expect_exact(words)

    def end(self):
        """Waits for the end and returns the exit code."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        return self.child.exitstatus


@pytest.fixture
def terminal(tmp_path):
    started = []

    def start(program, *args):
        started.append(Terminal(tmp_path, program, *args, "--runs-dir", "runs"))
        return started[-1]

    yield start
    for one in started:
        one.child.close(force=True)


def test_autoencoder_at_a_terminal(tmp_path, files, terminal):
    """Layer by layer with mistakes at every question, then the whole menu."""
    write_json(tmp_path / "tiny.json", AUTOENCODER)
    write_json(tmp_path / "wrong.json", AUTOENCODER, epochs=0, seed=-1)
    at = terminal("autoencoder", *files.autoencoder, "--limit", 24)
    at.answer("Your choice [1]: ", ("3", '1 to 2, got "3"'), ("two", '"two"'), "2")
    at.answer("Layer 1 (", ("upSample", 'drop or dense, got "upSample"'), "conv")
    at.answer("Filters [32]: ", ("-2", "from 1 to 4096"), "2")
    at.answer("Kernel height,width [3,3]: ", ("3,3,3", 'got "3,3,3"'), "3x3")
    at.answer("Layer 2 (", "pool")
    at.answer("Height,width [2,2]: ", ("0", "from 1 to 32"), "")
    at.answer("done) [done]: ", "drop")
    at.answer("Rate [0.25]: ", ("1", '0 to 0.99, got "1"'), "0.1")
    at.answer("done) [done]: ", "dense")
    at.answer("Units [64]: ", "6")
    at.answer("Layer 5 (done) [done]: ", "")
    at.answer("Mirror the encoder in the decoder (y/n) [y]: ", ("perhaps", 'got "perhaps"'), "")
    at.answer("Epochs [10]: ", ("1.5", "from 1 to 100000"), "2")
    at.answer("Batch size [32]: ", ("many", '"many"'), "8")
    at.answer("Output activation (", ("tanh", "Sigmoid, Linear or Relu"), "linear")
    at.answer("Optimizer (", ("adm", 'got "adm"'), "SGD")
    at.answer("Learning rate [0.001]: ", ("-1", "from 1e-09 to 10"), "0.1")
    at.answer("Save these hyperparameters as a file (y/n) [n]: ", "y")
    wrong = [(".", ".: must"), ("tiny.json", "tiny.json: must"), ("no/my.json", "no: must")]
    at.answer("File [my_autoencoder.json]: ", *wrong, "my.json")
    at.says("Saved my.json")
    at.says("my: epoch 2/2")
    at.answer(MENU, ("0", '1 to 4, got "0"'), ("", '""'), "1")
    at.answer("Your choice [2]: ", "1")
    wrong = [("gone.json", "gone.json: "), ("wrong.json", "seed: must be a whole number")]
    at.answer("File [1]: ", *wrong, "tiny.json")
    at.says("tiny: epoch 1/1")
    at.answer(MENU, "2")
    at.says("Figures of my: runs/")
    at.says("Comparison: runs/")
    at.answer(MENU, "3")
    at.answer("Which model [2]: ", ("3", "from 1 to 2"), "1")
    wrong = [("my.txt", ".keras or .h5"), ("tiny.json/my.h5", "tiny.json: must be a folder")]
    at.answer("[models/my.keras]: ", *wrong, "typed.h5")
    at.says("Saved my as typed.h5")
    at.answer(MENU, "4")
    assert at.end() == 0

    typed = load_config(tmp_path / "my.json", "autoencoder")
    assert layers_of(typed.encoder_layers) == [
        ["conv", 2, (3, 3)], ["pool", (2, 2)], ["drop", 0.1], ["dense", 6],
    ]  # fmt: skip
    assert [layer.kind for layer in typed.decoder_layers] == ["upSample", "conv"]
    assert (typed.epochs, typed.batch_size, typed.activation_function) == (2, 8, "Linear")
    assert (typed.optimizer.name, typed.optimizer.learning_rate) == ("sgd", 0.1)
    assert read_metadata(tmp_path / "typed.h5")["model_info"] == typed.model_dump(mode="json")
    assert len(list((tmp_path / "runs").glob("*/plots/comparison.png"))) == 1
    output = at.output.getvalue()
    assert "left " in output, "a progress bar, since this is a terminal"
    assert output.count(CURSOR_HIDDEN) == output.count(CURSOR_SHOWN) > 0
    assert "Traceback" not in output


def test_classification_at_a_terminal(tmp_path, files, terminal, trained_autoencoder):
    """A file, which leaves the encoder to be asked for, then the whole menu."""
    write_json(tmp_path / "head.json", CLASSIFIER)
    at = terminal("classification", *files.classifier)
    at.answer("Your choice [1]: ", ("one", '1 to 2, got "one"'), "1")
    at.answer("File [1]: ", ("gone.json", "gone.json: "), "head.json")
    wrong = [("", "name of a file"), ("gone.keras", "gone.keras: "), ("head.json", "head.json: ")]
    at.answer("Saved autoencoder: ", *wrong, trained_autoencoder.saved)
    at.says("head, full: epoch 1/1")
    at.answer(MENU, ("6", "from 1 to 5"), "4")
    at.answer("Save as (.keras or .h5) [models/head.keras]: ", "")
    at.answer("Create the folder models (y/n) [y]: ", "")
    at.says("Saved head as models/head.keras")
    at.answer(MENU, "3")
    at.answer("Which model [1]: ", "")
    at.says("macro avg")
    at.says("Report, predictions and figures: runs/")
    at.answer(MENU, "3")
    at.says("a saved classifier")
    at.answer("Which model [1]: ", "2")
    at.answer("File of the classifier [", ("head.json", "head.json: "), trained_autoencoder.saved)
    at.says(f"{trained_autoencoder.saved}: must be a classifier")
    at.answer(MENU, "3")
    at.answer("Which model [1]: ", "2")
    at.answer("File of the classifier [", "models/head.keras")
    at.says("accuracy")
    at.answer(MENU, "1")
    at.answer("Your choice [1]: ", "2")
    at.answer(f"Saved autoencoder [{trained_autoencoder.saved}]: ", "models/head.keras")
    at.answer("Layer 1 (", ("conv", 'got "conv"'), "dense")
    at.answer("Units [", ("0", "from 1 to 65536"), "4")
    at.says("gives 4")
    at.answer("Layer 2 (", "drop")
    at.answer("Rate [", ("2", 'got "2"'), "")
    at.says("gives 4")
    at.answer("Layer 3 (", "batchnorm")
    at.answer("Layer 4 (", "done")
    at.answer("Epochs of the dense layers alone [", ("-1", "from 0"), "0")
    at.answer("Epochs of all layers [", ("0", "from 1"), "1")
    at.answer("Batch size [", ("0", "from 1"), "")
    at.answer("Optimizer (", "")
    at.answer("Learning rate [", "")
    at.answer("Save these hyperparameters as a file (y/n) [n]: ", "n")
    at.says("classifier, full: epoch 1/1")
    at.answer(MENU, "2")
    at.says("Comparison: runs/")
    at.answer(MENU, "5")
    assert at.end() == 0

    tests = sorted((tmp_path / "runs").glob("*-test-head*"))
    assert len(tests) == 2
    first, second = ((folder / "predictions.csv").read_text() for folder in tests)
    assert first == second, "the saved classifier is the one of the session"
    config = read_json(next((tmp_path / "runs").glob("*-classifier/config.json")))
    assert config["dense_layers"] == [["dense", 4], ["drop", 0.25], ["batchNorm"]]
    assert config["encoder_layers"] == "models/head.keras"
    assert (config["dense_only_train_epochs"], config["full_train_epochs"]) == (0, 1)
    assert "Traceback" not in at.output.getvalue()


def test_ctrl_c_in_training_at_a_terminal(tmp_path, files, terminal, autoencoder_config):
    """The terminal gets its cursor back, and the run is complete."""
    at = terminal(
        "autoencoder", *files.autoencoder, "-c", autoencoder_config, "--epochs", 5000, "--no-plots"
    )
    at.says("epoch 3/5000")
    at.child.sendintr()
    assert at.end() == 130
    output = at.output.getvalue()
    assert output.rindex(CURSOR_SHOWN) > output.rindex(CURSOR_HIDDEN)
    (run,) = (tmp_path / "runs").iterdir()
    assert 3 <= read_json(run / "metrics.json")["epochs"] < 5000


def test_ctrl_c_and_back_in_a_dialogue(tmp_path, files, terminal):
    """Training ends with the model so far, a question with the one before; Ctrl-D is Exit."""
    write_json(tmp_path / "tiny.json", AUTOENCODER)
    at = terminal("autoencoder", *files.autoencoder, "--epochs", 5000, "--no-plots")
    at.answer("Your choice [1]: ", ("back", "Use an existing"), "2")
    at.answer("Layer 1 (", ("?", "conv: "), "pool")
    at.answer("Height,width [2,2]: ", ("9", "at most 8×8"), "2")
    at.says("gives 4×4×1")
    at.answer("Layer 2 (", "back")
    at.answer("Layer 1 (", "back")
    at.answer("Your choice [1]: ", "1")
    at.says("1  tiny.json")
    at.answer("File [1]: ", "1")
    at.says("epoch 3/5000")
    at.child.sendintr()
    at.answer(MENU, "3")
    at.answer("Save as (.keras or .h5) [models/tiny.keras]: ", "part.keras")
    at.says("Saved tiny as part.keras")
    at.answer(MENU, "1")
    at.says("Your choice [1]: ")
    at.child.sendintr()
    at.says(MENU)
    at.child.sendeof()
    assert at.end() == 0
    assert read_metadata(tmp_path / "part.keras")["kind"] == "autoencoder"


def test_a_trained_classifier_at_a_terminal(files, terminal, trained_classifier):
    """There is nothing before its menu to go back to, and Ctrl-D is Exit."""
    at = terminal("classification", *files.classifier, "-model", trained_classifier.saved)
    at.answer("Your choice [1]: ", "back")
    at.says("Train a new classifier")
    at.says("Your choice [1]: ")
    at.child.sendeof()
    assert at.end() == 0
    assert "error:" not in at.output.getvalue()


@pytest.mark.parametrize(("leave", "exit_code"), [("sendeof", 0), ("sendintr", 130)])
def test_leaving_at_a_question(files, terminal, leave, exit_code):
    """The end of input is no mistake, but the wish to leave, and so is Ctrl-C."""
    at = terminal("autoencoder", *files.autoencoder)
    at.says("Your choice [1]: ")
    getattr(at.child, leave)()
    assert at.end() == exit_code
    assert not re.search("error:|Traceback", at.output.getvalue())


def test_lines_are_completed_and_called_back(tmp_path, files, terminal):
    """Tab completes the name of a file, and the arrow key brings the line again."""
    write_json(tmp_path / "with-a-fault.json", AUTOENCODER, epochs=0)
    at = terminal("autoencoder", *files.autoencoder)
    at.answer("Your choice [1]: ", "1")
    for keys in ("with\t\r", "\x1b[A\r"):
        at.says("File [1]: ")
        at.child.send(keys)
        at.says("with-a-fault.json: epochs: must be")
    at.says("File [1]: ")
    at.child.sendeof()
    assert at.end() == 0


def test_an_answer_that_is_not_utf_8_is_asked_again(files):
    done = subprocess.run(
        [sys.executable, "autoencoder.py", *files.autoencoder],
        cwd=ROOT, input=b"\xff\n", capture_output=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout.count(b"Your choice [1]: ") == 2
    assert b"Traceback" not in done.stderr


# --- Piped answers --------------------------------------------------------------------------


@pytest.fixture
def piped(tmp_path, monkeypatch, files, launch, typed):
    """Runs a program with these lines as its standard input."""
    monkeypatch.chdir(tmp_path)

    def run(program, *args, data=None, answers=()):
        typed(*answers)
        data = data or (files.classifier if program == "classification" else files.autoencoder)
        return launch(program, *data, *args)

    return run


@pytest.fixture
def ask(typed):
    """Answers the questions for a configuration; after these answers it is Enter."""

    def run(*answers, kind="autoencoder", flags=("-d", "x"), latest=None, **options):
        typed(*answers, *[""] * 40)
        program = autoencoder if kind == "autoencoder" else classification
        args = program.build_parser().parse_args([*map(str, flags)])
        return ask_config(kind, args, (8, 8, 1), latest or Latest(), **options)

    return run


def layers_of(layers):
    return [list(layer) for layer in layers]


AUTOENCODER_ANSWERS = (
    *("2", "conv", "2", "3,3", "pool", "2,2", "batchNorm", "done"),
    *("n", "upSample", "2", "conv", "2", "3", "done"),
    *("1", "16", "Sigmoid", "adam", "0.01", "y", "my.json"),
)
CLASSIFIER_ANSWERS = ("2", "dense", "4", "done", "1", "1", "16", "adam", "0.01", "n")


@pytest.mark.parametrize(
    ("program", "answers"),
    [
        (program, typed[:given])
        for program, typed in (
            ("autoencoder", AUTOENCODER_ANSWERS), ("classification", CLASSIFIER_ANSWERS),
        )
        for given in range(len(typed))
    ],
)  # fmt: skip
def test_input_that_ends(piped, monkeypatch, trained_autoencoder, program, answers):
    """One line, exit code 2, no run: never a loop, and TensorFlow is not loaded for it."""
    monkeypatch.setattr(terminal_module, "starting_keras", None)
    model = ["-model", trained_autoencoder.saved] if program == "classification" else []
    done = piped(program, *model, answers=answers).refused()
    assert len(done.err.splitlines()) == 1
    assert re.match(r"error: standard input: an answer is required to '.+', got the end", done.err)
    assert "give -c FILE" in done.err


def test_input_that_ends_at_the_menu_of_a_trained_classifier(piped, trained_classifier):
    """A script that says nothing has not chosen to leave."""
    done = piped("classification", "-model", trained_classifier.saved).refused()
    assert done.err.startswith("error: standard input: an answer is required")


def test_own_decoder_and_end_of_input_in_the_menu(tmp_path, piped):
    """What was trained is kept."""
    done = piped("autoencoder", "--no-plots", answers=[*AUTOENCODER_ANSWERS, "3"]).refused()
    assert done.err.splitlines()[-1].startswith("error: standard input: an answer is required")
    assert done.run.name.endswith("-my")
    config = load_config(tmp_path / "my.json", "autoencoder")
    assert layers_of(config.decoder_layers) == [["upSample", (2, 2)], ["conv", 2, (3, 3)]]


@pytest.mark.parametrize("decoder", ["mirrored", "own"])
@pytest.mark.parametrize("has_menu", [True, False])
def test_the_last_answers_are_offered_again(ask, decoder, has_menu):
    """Enter at every question gives the same hyperparameters; without a menu there is no way back
    from the first one, which is asked again.
    """
    changes = {"epochs": 7, "batch_size": 5, "optimizer": ["sgd", 0.3]}
    if decoder == "own":
        changes["decoder_layers"] = [["upSample", [2, 2]], ["drop", 0.1], ["conv", 3, [5, 5]]]
    last = validate_config(AUTOENCODER | changes, "last", "autoencoder")
    answers = ["2"] if has_menu else ["back", "2"]
    _, config = ask(*answers, latest=Latest(config=last), has_menu=has_menu)
    assert config == last


def test_the_last_files_are_offered_again(ask, tmp_path, files, trained_autoencoder):
    """Enter at every question takes the same configuration and the same autoencoder."""
    mine = write_json(tmp_path / "mine.json", CLASSIFIER)
    ask = partial(ask, kind="classifier", flags=files.unlabelled_test, latest=Latest())
    name, config = ask("1", mine, trained_autoencoder.saved)
    assert (name, config.encoder_layers) == ("mine", trained_autoencoder.saved)
    assert ask() == (name, config)
    assert ask("2")[1].encoder_layers == trained_autoencoder.saved


def test_the_second_learning_rate_is_kept(ask, tmp_path):
    last = validate_config(CLASSIFIER | {"optimizer": ["adam", 0.1, 0.01]}, "last", "classifier")
    flags = ["-d", "x", "-model", tmp_path / "model.keras"]
    _, config = ask("2", kind="classifier", flags=flags, latest=Latest(config=last))
    assert config.optimizer == last.optimizer


def test_back_keeps_the_answers(ask):
    """From the epochs back to the layers, from the file back to the rate; Enter keeps them."""
    layers = ["conv", "5", "3", "pool", "2", "done", "n", "upSample", "2", "conv", "6", "3", "done"]
    again = [""] * len(layers)
    answers = ["2", *layers, "back", *again, "9", "16", "", "sgd", "0.25", "back", "", "", "n"]
    _, config = ask(*answers)
    assert layers_of(config.encoder_layers) == [["conv", 5, (3, 3)], ["pool", (2, 2)]]
    assert layers_of(config.decoder_layers) == [["upSample", (2, 2)], ["conv", 6, (3, 3)]]
    assert (config.epochs, config.batch_size) == (9, 16)
    assert (config.optimizer.name, config.optimizer.learning_rate) == ("sgd", 0.25)


def test_a_layer_that_makes_images_too_large_is_refused_at_once(ask, capsys):
    """A pool of 2 leaves 4 of 8 pixels per side: the decoder may double them once."""
    layers = ["pool", "2", "done", "n", "upSample", "4", "2", "convTranspose", "3", "3", "2", "1"]
    _, config = ask("2", *layers, "done", "", "", "", "", "", "n")
    expected = [["upSample", (2, 2)], ["convTranspose", 3, (3, 3), (1, 1)]]
    assert layers_of(config.decoder_layers) == expected
    refused = re.findall(r"ust be at most (\S+), or images", capsys.readouterr().out)
    assert refused == ["2×2", "1×1"]


def test_layers_that_do_not_fit_are_asked_again(piped, monkeypatch):
    monkeypatch.setattr(terminal_module, "starting_keras", None)
    too_small = ["2", "pool", "2", "done", "n", "done"]
    done = piped("autoencoder", answers=too_small)
    assert "error: answers: decoder_layers: must give back images of 8×8, got 4×4" in done.err
    assert "required to 'Layer 1" in done.err.splitlines()[-1]


def test_flags_are_not_asked_for(piped, monkeypatch):
    answers = ["2", "conv", "2", "3,3", "done", "y"]
    done = piped("autoencoder", "--epochs", 3, "--batch-size", 4, answers=answers)
    assert "required to 'Output activation" in done.err
    assert "Epochs" not in done.out
    assert "Batch size" not in done.out


def test_a_training_that_fails_is_explained_and_asked_again(
    piped, autoencoder_config, classifier_config, first_training_diverges
):
    answers = ["1", autoencoder_config, "1", autoencoder_config, "2", "4"]
    done = piped("autoencoder", "--no-plots", answers=answers).ok()
    assert "error: tiny: the loss must stay finite" in done.err
    names = {path.stem for path in (done.run / "plots").iterdir()}
    assert "loss" in names, "show graphs draws them after all"


def test_classifier_with_a_given_model(piped, files, trained_autoencoder):
    """The encoder is not asked for; without test images there is nothing to classify."""
    done = piped(
        "classification", "-model", trained_autoencoder.saved, "--no-plots",
        data=files.unlabelled_test, answers=[*CLASSIFIER_ANSWERS, "3", "5"],
    ).ok()  # fmt: skip
    assert "Saved autoencoder" not in done.out
    assert read_metadata(done.run / "model.keras")["encoder"] == trained_autoencoder.saved
    assert "error: -t: test images are required, got none." in done.err


def test_a_test_without_figures(piped, files, trained_classifier):
    done = piped(
        "classification", "-model", trained_classifier.saved, "--no-plots",
        data=files.classifier, answers=["1", "3"],
    ).ok()  # fmt: skip
    assert (done.run / "predictions.csv").exists() and not (done.run / "plots").exists()


def test_models_of_a_recipe_are_offered_like_those_of_runs(
    tmp_path, monkeypatch, trained_autoencoder
):
    model = Path(trained_autoencoder.saved).resolve()
    shape = tuple(read_metadata(model)["input_shape"])
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/alone", "runs/recipe/autoencoder-seed0"):
        Path(folder).mkdir(parents=True)
        shutil.copy(model, Path(folder, "model.keras"))
    assert sorted(find_models("autoencoder", "runs", shape)) == [
        "runs/alone/model.keras",
        "runs/recipe/autoencoder-seed0/model.keras",
    ]

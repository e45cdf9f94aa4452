"""What the programs share: flags, exit codes, signals and what is printed."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT

from cae import terminal
from cae.errors import UserError
from cae.programs import flags as flags_module
from cae.programs import start
from cae.programs.task import Experiment
from cae.records.history import History


@pytest.fixture
def parser():
    parser = flags_module.Parser(prog="program.py")
    parser.add_argument("-d", "--dataset")
    parser.add_argument("-model", "--model")
    flags_module.add_groups(parser, flags_module.TRAINING)
    return parser


def test_the_command_is_kept_as_a_shell_would_take_it(parser):
    assert parser.parse_args(["-d", "my data"]).command == "program.py -d 'my data'"


@pytest.mark.parametrize("size", ["0x28", "28x00", "0000x1", "28", "28x28x1", "-1x5"])
def test_a_size_has_no_side_of_zero(parser, size):
    with pytest.raises(UserError, match="--image-size"):
        parser.parse_args(["--image-size", size])
    assert parser.parse_args(["--image-size", "08x28"]).image_size == (8, 28)


@pytest.mark.parametrize(
    ("given", "meant"), [("all", "all"), ("workers", "workers"), ("cluster", "workers"), ("2", 2)]
)
def test_devices(parser, given, meant):
    assert parser.parse_args(["--devices", given]).devices == meant


@pytest.mark.parametrize("share", ["0.95", "1", "-0.1", "nan", "a"])
def test_a_share_for_testing_leaves_images_to_train_on(parser, share):
    with pytest.raises(UserError, match=r"--test-split.* from 0 to 0\.9"):
        parser.parse_args(["--test-split", share])
    assert parser.parse_args(["--test-split", "0.3"]).test_split == 0.3


def test_nothing_is_remembered_between_two_command_lines(parser):
    parser.parse_args(["-c", "a"])
    assert parser.parse_args([]).config == []


def test_version(parser, capsys):
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--version"])
    assert end.value.code == 0
    assert re.fullmatch(r"program\.py \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_an_empty_argument_is_not_taken_for_a_dash(parser):
    assert parser.parse_args(["-d", ""]).dataset == ""


def test_a_wrong_flag_of_a_subcommand(parser):
    """Only flags that this subcommand has are offered."""
    commands = parser.add_subparsers(dest="subcommand", required=True)
    commands.add_parser("draw").add_argument("--color")
    commands.add_parser("count").add_argument("--columns")
    with pytest.raises(UserError, match=r"Did you mean --color\?"):
        parser.parse_args(["draw", "--colum"])
    with pytest.raises(UserError, match=r"See program\.py count --help"):
        parser.parse_args(["count", "--epoch"])


@pytest.mark.parametrize(
    ("program", "exit_code", "written"),
    [
        (lambda args: 7, 7, ""),
        (UserError("x", "must be y", "z", "Do w."), 2, "error: x: must be y, got z. Do w.\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_exit_codes(parser, capsys, program, exit_code, written):
    def run(args):
        if isinstance(program, BaseException):
            raise program
        return program(args)

    assert start.run(run, parser, []) == exit_code
    assert capsys.readouterr().err == written


def test_a_defect_keeps_its_traceback(parser):
    def fail(args):
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        start.run(fail, parser, [])


def test_names_are_printed_as_they_are(capsys):
    """Square brackets mean markup to rich, and a line in a file is never cut."""
    name = "[/b] [red] :smile: " + "x" * 300
    terminal.say(name)
    terminal.show_facts(name, {"a": name, "longer": 1})
    terminal.warn(name)
    out, err = capsys.readouterr()
    assert out == f"{name}\n{name}\n  a       {name}\n  longer  1\n"
    assert err == f"warning: {name}\n"


def test_the_first_signal_asks_and_the_second_stops(capsys):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), start.StopSignal() as stop:
        assert not stop.requested()
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested()
        assert stop.exit_code == 143
        signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert "Ctrl-C" in capsys.readouterr().err


def test_what_takes_long_is_named(monkeypatch, capsys):
    """Slow steps last until they are named; nothing is left that would name one afterwards."""
    is_named, announce = threading.Event(), terminal.announce
    monkeypatch.setattr(terminal, "announce", lambda step: (announce(step), is_named.set()))
    steps = [("Quick", 600), ("Slow \x1b[31m", 0.01), ("Slow again", 0.01)]
    for step, patience in steps:
        monkeypatch.setattr(terminal, "PATIENCE", patience)
        is_named.clear()
        with terminal.announcing(step):
            assert patience > 1 or is_named.wait(60)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(60)
            assert not thread.is_alive()
    assert capsys.readouterr().err.splitlines() == ["Slow ?[31m …", "Slow again …"]


class TestStartingKeras:
    def test_hides_what_libraries_write(self, capfd):
        with terminal.starting_keras():
            os.write(2, b"a message of C++\n")
        os.write(2, b"after\n")
        assert "C++" not in (err := capfd.readouterr().err)
        assert err.endswith("after\n")

    @pytest.mark.parametrize("backend", ["torch", "theano"])
    def test_a_backend_that_cannot_be_used(self, monkeypatch, backend):
        monkeypatch.setenv("KERAS_BACKEND", backend)
        with pytest.raises(UserError, match="KERAS_BACKEND"), terminal.starting_keras():
            pass

    def test_shows_it_when_the_import_fails(self, capfd):
        with pytest.raises(ImportError), terminal.starting_keras():
            os.write(2, b"the reason\n")
            raise ImportError
        assert "the reason" in capfd.readouterr().err


def test_result_in_a_line():
    values = {"loss": 0.5, "val_loss": 0.25, "accuracy": 1.0, "test_accuracy": 0.98765}
    history = History("x", "autoencoder", {}, metrics=values)
    experiment = Experiment(None, None, history, None, None, None)
    assert experiment.result == "loss 0.5000, val_loss 0.2500"
    history.kind = "classifier"
    assert experiment.result == "accuracy 1.0000, test_accuracy 0.9877"


def test_lines_break_between_words_at_a_terminal(screen):
    """A path that does not fit beside the name of a fact gets a line of its own, and is never cut;
    a command stays on one line, to be copied.
    """
    shown = screen(20)
    path = "runs/" + "x" * 20
    terminal.show_facts("run", {"best": "one two three", "run": path})
    terminal.say(f"Saved as {path}")
    terminal.print_as_is(f"Next: python {path}")
    lines = [line.rstrip() for line in shown.getvalue().splitlines()[1:]]
    facts = ["  best  one two", "        three", "  run", f"    {path}"]
    assert lines == [*facts, "Saved as", f"  {path}", f"Next: python {path}"]


def test_paths_are_short(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert terminal.relative(tmp_path / "runs" / "x") == str(Path("runs") / "x")
    assert terminal.relative(tmp_path.parent) == str(tmp_path.parent)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["autoencoder_small", "autoencoder_small_dropout"], ["small", "small_dropout"]),
        (["a_batch_size_16", "a_batch_size_64"], ["size_16", "size_64"]),
        (
            ["a-learning_rate=0.1", "a-learning_rate=0.2"],
            ["learning_rate=0.1", "learning_rate=0.2"],
        ),
        (["tiny", "tiny-2"], ["tiny", "tiny-2"]),
        (["same_name", "same_name"], ["same_name", "same_name"]),
    ],
)
def test_names_keep_what_differs(names, shown):
    assert terminal.drop_common_start(names) == shown


def test_a_reader_that_goes_away_is_no_defect(tmp_path):
    """As in `autoencoder.py ... --print-config | head -0`."""
    code = (
        "import sys\nfrom cae.programs import flags, start\n"
        "def program(args):\n"
        "    while True:\n"
        "        sys.stdout.write('x' * 1000)\n"
        "sys.exit(start.run(program, flags.Parser(), []))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 141

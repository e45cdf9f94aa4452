"""Questions: defaults, explanations, and the end of the input."""

import io
import os
import re
import sys

import pytest

from cae import files, prompts, terminal
from cae.errors import UsageError, UserError


@pytest.fixture
def ask(monkeypatch, capsys):
    """Calls a function of `prompts` with these lines typed; returns its value and the screen."""

    def run(function, *args, typed):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in typed)))
        return function(*args), capsys.readouterr().out

    return run


def test_enter_means_the_default(ask):
    value, screen = ask(prompts.ask, "Epochs", prompts.whole_number(1, 9), 5, typed=["  "])
    assert value == 5
    assert screen == "Epochs [5]: "


def test_a_question_leaves_room_for_the_answer(monkeypatch, capsys):
    """At a terminal of 40 columns, in lines that break between words."""
    prompted = []
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(terminal.OUT, "_environ", os.environ)
    monkeypatch.setattr(terminal.OUT, "_force_terminal", True)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: prompted.append(prompt) or "")
    kinds = ["conv", "upSample", "convTranspose"]
    question = f"  Layer 1 ({', '.join(kinds)})"
    assert prompts.ask(question, prompts.one_of(kinds), "conv") == "conv"
    assert re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out) == "  Layer 1 (conv, upSample,\n"
    assert "    convTranspose) [conv]: " in prompted[0]


def test_a_pair_is_shown_as_it_is_typed(ask):
    value, screen = ask(prompts.ask, "Size [bold]", prompts.pair(1, 9), (3, 5), typed=[""])
    assert value == (3, 5)
    assert screen == "Size [bold] [3,5]: "


def test_without_a_default_enter_is_no_answer(ask):
    value, screen = ask(prompts.ask, "Epochs", prompts.whole_number(1, 9), typed=["", "3"])
    assert value == 3
    assert screen.count("Epochs: ") == 2


def test_a_number_that_is_not_offered(ask, tmp_path, monkeypatch):
    """It names the range, unless it is the name of a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "8").touch()
    value, screen = ask(prompts.ask_file, "File", str, ["a", "b"], typed=["9", "2"])
    assert value == "b" and "from 1 to 2" in screen
    assert ask(prompts.ask_file, "File", str, ["a", "b"], typed=["8"])[0] == "8"
    assert ask(prompts.ask_file, "File", str, [], typed=["9"])[0] == "9"


def test_every_line_of_an_error_is_shown(ask):
    """All problems of a configuration, and then the question again."""
    problems = [UserError("epochs", "must be 1", 0), UserError("seed", "must be 0", "red")]

    def parse(answer):
        if answer == "bad":
            raise UserError.joining(problems)
        return answer

    value, screen = ask(prompts.ask, "File", parse, typed=["bad", "good"])
    assert value == "good"
    assert "  epochs: must be 1, got 0.\n  seed: must be 0, got red.\n" in screen


def test_the_end_of_the_input_is_an_error(ask):
    with pytest.raises(prompts.InputEnded, match=r"'Layer 1'.*-c FILE") as end:
        ask(prompts.ask, "  Layer 1", str, typed=[])
    assert isinstance(end.value, UsageError)


def test_choose(ask):
    value, screen = ask(prompts.choose, "Which", ["tea", "milk"], typed=["3", "2"])
    assert value == 2
    assert screen.startswith("  1  tea\n  2  milk\nWhich [1]: ")


@pytest.mark.parametrize(
    ("typed", "default", "expected"),
    [("", True, True), ("", False, False), ("YES", False, True), ("n", True, False)],
)
def test_confirm(ask, typed, default, expected):
    value, _ = ask(prompts.confirm, "Save", default, typed=[typed])
    assert value is expected


@pytest.mark.parametrize(
    ("parse", "answer", "expected"),
    [
        (prompts.whole_number(0, 9), "0", 0),
        (prompts.number(0, 1), "1e-3", 0.001),
        (prompts.pair(1, 9), "3", (3, 3)),
        (prompts.pair(1, 9), "3,5", (3, 5)),
        (prompts.pair(1, 9), "3X5", (3, 5)),
        (prompts.pair(1, 9), "3 × 5", (3, 5)),
        (prompts.pair(1, 9), "[3, 5]", (3, 5)),
        (prompts.one_of(["batchNorm", "conv"]), "BATCHNORM", "batchNorm"),
    ],
)
def test_accepts(parse, answer, expected):
    assert parse(answer) == expected


@pytest.mark.parametrize(
    ("parse", "answer", "allowed"),
    [
        (prompts.whole_number(1, 9), "10", "1 to 9"),
        (prompts.whole_number(1, 9), "1.0", "1 to 9"),
        (prompts.whole_number(1, 9), "9" * 5000, "1 to 9"),
        (prompts.number(0, 1), "nan", "0 to 1"),
        (prompts.number(0, 1), "1,5", "0 to 1"),
        (prompts.pair(1, 9), "", "1 to 9"),
        (prompts.pair(1, 9), "3,10", "1 to 9"),
        (prompts.pair(1, 9), "1,2,3", "1 to 9"),
        (prompts.one_of(["conv", "pool"]), "con", "conv or pool"),
        (prompts.file_name(str), "", "file"),
    ],
)
def test_refuses(parse, answer, allowed):
    with pytest.raises(ValueError, match=allowed) as refusal:
        parse(answer)
    assert len(str(refusal.value)) < 120
    if answer and len(answer) < 50:
        assert f'"{answer}"' in str(refusal.value)


def test_file_name_knows_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert prompts.file_name(str)("~/my.json") == "/home/somebody/my.json"
    assert prompts.file_name(str)("~no such user/x") == "~no such user/x"


@pytest.mark.parametrize("name", ["old.json", ".", "no/x"])
def test_new_file(tmp_path, name):
    """An existing file, a folder, and a file in a folder that does not exist."""
    (tmp_path / "old.json").touch()
    assert files.new_file(str(tmp_path / "new.json")) == tmp_path / "new.json"
    with pytest.raises(UsageError, match=f"^{(tmp_path / name).parent}"):
        files.new_file(str(tmp_path / name))


def test_a_new_folder_may_exist_empty(tmp_path):
    for _ in range(2):
        assert files.new_folder("--output", str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
    (tmp_path / "a" / "file").touch()
    for name in ("a", "a/file"):
        with pytest.raises(UsageError, match=str(tmp_path / name)):
            files.new_folder("--output", str(tmp_path / name))

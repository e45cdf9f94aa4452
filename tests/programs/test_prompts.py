"""Questions: defaults, explanations, and the end of the input."""

import io
import sys

import pytest
from rich.console import Console

from cae import prompts
from cae.errors import ConfigurationError, UsageError, UserError


@pytest.fixture
def ask(monkeypatch):
    """Calls a function of `prompts` with these lines typed; returns its value and the screen."""

    def run(function, *args, typed):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in typed)))
        console = Console(file=io.StringIO(), soft_wrap=True, markup=False)
        return function(console, *args), console.file.getvalue()

    return run


def test_enter_means_the_default(ask):
    value, screen = ask(prompts.ask, "Epochs", prompts.whole_number(1, 9), 5, typed=["  "])
    assert value == 5
    assert screen == "Epochs [5]: "


def test_without_a_default_enter_is_no_answer(ask):
    value, screen = ask(prompts.ask, "Epochs", prompts.whole_number(1, 9), typed=["", "3"])
    assert value == 3
    assert screen.startswith("Epochs:   Give a whole number from 1 to 9, not ''.\nEpochs: ")


def test_square_brackets_are_shown_as_they_are(ask):
    _, screen = ask(prompts.ask, "Size [bold]", prompts.pair(1, 9), "[3,3]", typed=[""])
    assert screen == "Size [bold] [[3,3]]: "


def test_every_line_of_an_error_is_shown(ask):
    """All problems of a configuration, and then the question again."""
    problems = [UserError("epochs", "must be 1", 0), UserError("seed", "must be 0", "red")]

    def parse(answer):
        if answer == "bad":
            raise ConfigurationError.joining(problems)
        return answer

    value, screen = ask(prompts.ask, "File", parse, typed=["bad", "good"])
    assert value == "good"
    assert "  epochs: must be 1, got 0.\n  seed: must be 0, got red.\n" in screen


def test_an_answer_that_is_not_utf_8_is_asked_again(ask, monkeypatch):
    lines = iter([b"\xff", b"plain"])
    monkeypatch.setattr("builtins.input", lambda: next(lines).decode())
    value, screen = ask(prompts.ask, "Name", str, typed=[])
    assert value == "plain"
    assert "can't decode byte 0xff" in screen


def test_the_end_of_the_input_is_an_error(ask):
    with pytest.raises(prompts.InputEnded, match=r"required to 'Layer 1'.*-c FILE") as end:
        ask(prompts.ask, "  Layer 1", str, typed=[])
    assert isinstance(end.value, UsageError)


def test_choose(ask):
    value, screen = ask(prompts.choose, "Which", ["tea", "milk"], typed=["3", "2"])
    assert value == 2
    assert screen.startswith("  1  tea\n  2  milk\nWhich [1]: ")
    assert "Give a whole number from 1 to 2, not '3'." in screen


@pytest.mark.parametrize(
    ("typed", "default", "expected"),
    [("", True, True), ("", False, False), ("YES", False, True), ("n", True, False)],
)
def test_confirm(ask, typed, default, expected):
    value, screen = ask(prompts.confirm, "Save", default, typed=[typed])
    assert value is expected
    assert screen == f"Save (y/n) [{'y' if default else 'n'}]: "


@pytest.mark.parametrize(
    ("parse", "answer", "expected"),
    [
        (prompts.whole_number(0, 9), "0", 0),
        (prompts.whole_number(0, 9), "9", 9),
        (prompts.number(0, 1), "0", 0.0),
        (prompts.number(0, 1), "1e-3", 0.001),
        (prompts.pair(1, 9), "3", (3, 3)),
        (prompts.pair(1, 9), "3,5", (3, 5)),
        (prompts.pair(1, 9), "3 5", (3, 5)),
        (prompts.pair(1, 9), "3X5", (3, 5)),
        (prompts.pair(1, 9), "3 × 5", (3, 5)),
        (prompts.pair(1, 9), "[3, 5]", (3, 5)),
        (prompts.pair(1, 9), "( 3, 5 )", (3, 5)),
        (prompts.one_of(["batchNorm", "conv"]), "BATCHNORM", "batchNorm"),
    ],
)
def test_accepts(parse, answer, expected):
    assert parse(answer) == expected


@pytest.mark.parametrize(
    ("parse", "answer", "message"),
    [
        (prompts.whole_number(1, 9), "10", "from 1 to 9, not '10'"),
        (prompts.whole_number(1, 9), "1.0", "whole number"),
        (prompts.whole_number(1, 9), "9" * 5000, "whole number"),
        (prompts.number(0, 1), "nan", "from 0 to 1, not 'nan'"),
        (prompts.number(0, 1), "inf", "from 0 to 1"),
        (prompts.number(0, 1), "1,5", "not '1,5'"),
        (prompts.pair(1, 9), "", "height and width from 1 to 9"),
        (prompts.pair(1, 9), "3,", "for example 3,3"),
        (prompts.pair(1, 9), "3,10", "from 1 to 9"),
        (prompts.pair(1, 9), "1,2,3", "height and width"),
        (prompts.one_of(["conv", "pool"]), "con", "Give one of conv, pool, not 'con'"),
        (prompts.yes_or_no, "maybe", "Answer y or n"),
        (prompts.file_name(str), "", "Give the name of a file"),
    ],
)
def test_refuses(parse, answer, message):
    with pytest.raises(ValueError, match=message):
        parse(answer)


def test_file_name_knows_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert prompts.file_name(str)("~/my.json") == "/home/somebody/my.json"
    assert prompts.file_name(str)("~no such user/x") == "~no such user/x"


def test_new_file(tmp_path):
    (tmp_path / "old.json").touch()
    assert prompts.new_file(str(tmp_path / "new.json")) == tmp_path / "new.json"
    for name, message in (("old.json", "exists"), (".", "is a folder"), ("no/x", "no folder")):
        with pytest.raises(ValueError, match=message):
            prompts.new_file(str(tmp_path / name))

"""The live table of a study, and the time left, by hand."""

import io
from dataclasses import replace

import pytest
from report_folders import write_plan
from rich.console import Console

from cae.config.study import expand, load_stages
from cae.studies import progress as progress_module
from cae.studies.progress import Outcome, ProgressTable, format_duration


@pytest.fixture
def file(tmp_path):
    """Three rates with two seeds each, of 4 epochs."""
    _, (file,) = load_stages(write_plan(tmp_path, "digits", epochs=4))
    return file


@pytest.fixture
def outcomes(file):
    return [Outcome(trial) for trial in expand(file, "data", {})]


class Terminal(io.StringIO):
    """Keeps what a terminal would show."""

    def isatty(self):
        return True


@pytest.fixture
def screen(monkeypatch):
    for name, value in (("TERM", "xterm"), ("COLUMNS", "100"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    return Terminal()


@pytest.fixture
def progress(file, outcomes, screen):
    return ProgressTable(Console(file=screen), file.study, outcomes, 6)


@pytest.fixture
def clock(monkeypatch):
    """The seconds that `time.monotonic` returns next."""
    clock = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock[0])
    return clock


def finish(outcome, seconds, value=0.1, **trial):
    outcome.status, outcome.seconds, outcome.value = "done", seconds, value
    outcome.trial = replace(outcome.trial, **trial)


def test_the_live_table(progress, outcomes, screen):
    """One row per base: done, failed, the best so far; below, the last epoch."""
    finish(outcomes[0], 60, 0.2)
    finish(outcomes[1], 60, 0.1)
    outcomes[2].status = "failed"
    with progress:
        progress.show_epoch(outcomes[3].trial, 3, 0.25, 60)
    text = screen.getvalue()
    assert "tiny: 2 of 6 trials done" in text and "3 min" in text
    *_, row = [line for line in text.splitlines() if "2/6" in line]
    assert row.split()[1:8:2] == ["base", "2/6", "1", "0.1"]
    assert f"{outcomes[3].trial.id}: epoch 3, 0.25" in text


def test_the_live_table_shows_what_differs(progress, outcomes, screen):
    finish(outcomes[0], 60, base="autoencoder_small", configuration="autoencoder_small-epochs=9")
    finish(outcomes[1], 60, base="autoencoder_large", configuration="autoencoder_large")
    for outcome in outcomes[2:]:
        outcome.trial = outcomes[0].trial
    with progress:
        pass
    text = screen.getvalue()
    assert "autoencoder" not in text
    assert "small" in text and "0.1 (epochs=9)" in text
    assert "large" in text and "0.1 (unchanged)" in text


def test_the_first_epochs_tell_the_time_left(progress, outcomes, clock):
    """6 trials of 4 epochs at 5 s each; 10 s of them have passed."""
    with progress.timing(outcomes[0]) as on_epoch:
        for clock[0] in (5.0, 10.0):
            on_epoch({"epoch": 7})  # it was resumed
        assert progress.estimate_seconds_left() == 6 * 4 * 5 - 10
    assert outcomes[0].seconds == 10


def test_with_min_steps_only_finished_trials_tell_the_time_left(progress, outcomes):
    """Before, nobody knows how many epochs a trial has."""
    for outcome in outcomes:
        config = outcome.trial.config.model_copy(update={"epochs": 1, "min_steps": 200})
        outcome.trial = replace(outcome.trial, config=config)
    with progress.timing(outcomes[0]) as on_epoch:
        on_epoch({"epoch": 1})
        assert progress.estimate_seconds_left() is None
    finish(outcomes[0], 100)
    assert progress.estimate_seconds_left() == 5 * 100


def test_finished_trials_tell_the_time_left(progress, outcomes):
    """Those of the same base, where there are any."""
    finish(outcomes[0], 100)
    assert progress.estimate_seconds_left() == 5 * 100
    finish(outcomes[1], 30, base="other")
    assert progress.estimate_seconds_left() == 4 * 100
    outcomes[2].trial = replace(outcomes[2].trial, base="third")  # the mean of all
    assert progress.estimate_seconds_left() == 3 * 100 + 65
    progress.parallel = 2
    assert progress.estimate_seconds_left() == (3 * 100 + 65) / 2
    for outcome in outcomes:
        outcome.status = "done"
    assert progress.estimate_seconds_left() == 0


def test_the_time_left_grows_with_the_epochs(progress, outcomes):
    """10 s per epoch."""
    finish(outcomes[0], 40)
    for outcome in outcomes[1:]:
        config = outcome.trial.config.model_copy(update={"epochs": 1})
        outcome.trial = replace(outcome.trial, config=config)
    assert progress.estimate_seconds_left() == 5 * 10


def test_trials_that_have_not_been_suggested_count(file, outcomes):
    progress = ProgressTable(Console(file=io.StringIO()), file.study, outcomes[:2], total=6)
    assert progress.estimate_seconds_left() is None
    finish(outcomes[0], 100)
    assert progress.estimate_seconds_left() == 5 * 100


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40, "40 s"), (89, "89 s"), (100, "2 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text

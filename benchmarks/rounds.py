"""Rounds of competitors in turn, each in its own process, and the arithmetic of comparing them.

A shared machine stalls for seconds at a time, whatever runs. So competitors take turns, round by
round (A B C, A B C, …), only one computing at a time, and are compared round by round: a ratio is
the median of the rounds' ratios, which a few stalled rounds do not move.
"""

import json
import os
import shlex
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from cae.errors import UserError

# The same number of threads for all: TensorFlow takes as many without being told.
THREADS = os.cpu_count() or 1
ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "OMP_NUM_THREADS": str(THREADS),
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def get_spread(values: Sequence[float]) -> dict[str, float]:
    """Median and extremes of at least one value."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def get_ratios(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, float]:
    """Median and extremes of the ratios of values from the same round."""
    return get_spread([a / b for a, b in zip(numerators, denominators, strict=True)])


class Round(NamedTuple):
    """A competitor's answer: the seconds of the round, and the most memory it has had so far."""

    seconds: float
    peak_bytes: int


class Worker:
    """A competitor as the driver sees it. Use as a context manager.

    Args:
        name: How errors call it.
        command: Starts its process, which talks through a `competitors.Driver`.
    """

    def __init__(self, name: str, command: Sequence[str]):
        self._name = name
        self._command = command

    def __enter__(self) -> "Worker":
        self._errors = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **ENVIRONMENT},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # it has nothing to save
        self._process.communicate()
        self._errors.close()

    def run_round(self) -> Round:
        """Lets the competitor compute one round, the first one after it has started up.

        Raises:
            UserError: The process ended instead.
        """
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise self._get_error()
        return Round(*json.loads(answer))

    def _get_error(self) -> UserError:
        exit_code = self._process.wait()
        self._errors.seek(0)
        *_, last_line = "no output", *self._errors.read().splitlines()
        return UserError(
            self._name,
            "must answer every round",
            f"exit code {exit_code} ({last_line.strip()})",
            f"For the whole output run {shlex.join(self._command)} and press Enter.",
        )


def interleave(workers: Mapping[str, Worker], rounds: int) -> dict[str, list[float]]:
    """The seconds of every worker's rounds, taken in turns, after a warm-up round each."""
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    with ExitStack() as stack:
        for worker in workers.values():
            stack.enter_context(worker).run_round()  # starts up before the next one does
        for _ in range(rounds):
            for name, worker in workers.items():
                seconds[name].append(worker.run_round().seconds)
    return seconds

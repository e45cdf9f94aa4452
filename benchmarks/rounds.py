"""Rounds of competitors in turn, each in a process of its own: both ends, and the arithmetic.

A shared machine stalls for seconds at a time, whatever runs. So competitors take turns, round by
round (A B C, A B C, ...), only one computing at a time, and are compared round by round: a ratio
is the median of the rounds' ratios, which a few stalled rounds do not move.
"""

import ctypes
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TypedDict

from cae.errors import UserError

# The same number of threads for everybody: TensorFlow takes as many without being told.
THREADS = os.cpu_count() or 1
ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "OMP_NUM_THREADS": str(THREADS),
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

# Flags of mlockall(2).
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4


class Spread(TypedDict):
    """What several rounds say together."""

    median: float
    min: float
    max: float


def get_spread(values: Sequence[float]) -> Spread:
    """Median and extremes of at least one value."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def get_ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Median and extremes of the ratios of values from the same round."""
    return get_spread([a / b for a, b in zip(numerators, denominators, strict=True)])


@dataclass(frozen=True)
class Round:
    """What a competitor answers.

    Attributes:
        seconds: What the round took.
        peak_bytes: Most memory that the process has had so far.
    """

    seconds: float
    peak_bytes: int


class Driver:
    """The driver as its worker sees it: a line in starts a round, a line out ends it.

    Standard output is kept for the answers; what libraries print there goes to standard error.
    """

    def __init__(self) -> None:
        keep_memory()
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def wait(self) -> None:
        """Blocks until the round may start."""
        if not sys.stdin.readline():
            raise SystemExit("the driver has gone")
        self._start = time.perf_counter()

    def answer(self) -> None:
        """Ends the round."""
        seconds = time.perf_counter() - self._start
        json.dump({"seconds": seconds, "peak_bytes": get_peak_bytes()}, self._answers)
        self._answers.write("\n")
        self._answers.flush()


def keep_memory() -> None:
    """Keeps the pages of this process in memory while it waits for its turn, where it may.

    Some virtual machines drop pages that nobody has touched for a minute, and with them the
    libraries of whoever waits: TensorFlow's, read again from the disk, cost a round ten seconds.
    """
    with suppress(OSError, AttributeError):  # not Linux: no such function
        ctypes.CDLL(None).mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)


def get_peak_bytes() -> int:
    """Most physical memory that this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Worker:
    """A competitor as the driver sees it. Use as a context manager.

    Args:
        name: What errors call it.
        command: What to run; its process talks through a `Driver`.
        environment: Variables added to this process's own.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] = ENVIRONMENT
    ):
        self._name = name
        self._command = command
        self._environment = environment

    def __enter__(self) -> "Worker":
        self._errors = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **self._environment},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # it has nothing to save
        self._process.communicate()
        self._errors.close()

    def run_round(self) -> Round:
        """Lets the worker compute one round, the first one after it has started up.

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
        return Round(**json.loads(answer))

    def _get_error(self) -> UserError:
        exit_code = self._process.wait()
        self._errors.seek(0)
        *_, last_line = "nothing said", *self._errors.read().split("\n")[:-1]
        return UserError(
            self._name,
            "must answer every round",
            f"exit code {exit_code} ({last_line.strip()})",
            f"To see all of it, run {shlex.join(self._command)} and press Enter.",
        )


def interleave(workers: Mapping[str, Worker], rounds: int) -> dict[str, list[float]]:
    """Lets workers take turns after a round each to warm up.

    Returns:
        The seconds of every worker's rounds, without the first.
    """
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    with ExitStack() as stack:
        for worker in workers.values():
            stack.enter_context(worker).run_round()  # starts up before the next one does
        for _ in range(rounds):
            for name, worker in workers.items():
                seconds[name].append(worker.run_round().seconds)
    return seconds

"""The workers that train one model together: their addresses, and the share of each. No Keras.

A worker is a process with its own device and its own copy of the model. All run the same program
with the same flags. They find each other by `TF_CONFIG`, which TensorFlow's guide to distributed
training describes, or by the environment of a Slurm task.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from cae.config.choices import CLUSTER
from cae.errors import UsageError

# How long workers wait for each other at the start: the nodes of a cluster may load slowly.
MEETING_SECONDS = 600
SECONDS_BETWEEN_CALLS = 0.5
SECONDS_TO_SPEAK = 5


class _Jobs(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")  # no chief, no parameter servers

    worker: list[Annotated[str, Field(pattern=r"^.+:[0-9]{1,5}$")]] = Field(min_length=1)


class _Task(BaseModel):
    model_config = ConfigDict(strict=True)

    type: Literal["worker"]
    index: NonNegativeInt


class _TfConfig(BaseModel):
    cluster: _Jobs
    task: _Task


@dataclass(frozen=True)
class WorkerGroup:
    """The addresses of all workers, and which of them this process is."""

    addresses: Sequence[str]  # `host:port`
    index: int  # worker 0 keeps the record

    @property
    def index_on_host(self) -> int:
        """How many of the earlier workers run on the same machine."""
        hosts = [address.rpartition(":")[0] for address in self.addresses[: self.index + 1]]
        return hosts.count(hosts[-1]) - 1

    def to_json(self) -> str:
        """The content of `TF_CONFIG`."""
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": list(self.addresses)}, "task": task})


@dataclass(frozen=True)
class Share:
    """One worker's images of every batch.

    No share is empty: if a batch has fewer images than there are workers, the remaining workers get
    an image too, which `get_counts` excludes.
    """

    index: int = 0  # of the worker
    count: int = 1  # of workers

    def take(self, indices: np.ndarray, batch_size: int) -> np.ndarray:
        """The part of int64 (num_images,) in this share, one batch after the other."""
        batches = [indices[start:] for start in range(0, len(indices), batch_size)]
        return np.concatenate([self._take_of(batch[:batch_size]) for batch in batches])

    def get_size(self, batch_size: int) -> int:
        """How many images of a whole batch are in this share."""
        return len(self._take_of(np.arange(batch_size)))

    def get_counts(self, num_images: int, batch_size: int) -> np.ndarray:
        """float32 (num_batches, 2): images of each batch to count in this share, and in all."""
        sizes = np.array(
            [min(batch_size, num_images - start) for start in range(0, num_images, batch_size)]
        )
        counted = sizes // self.count + (self.index < sizes % self.count)
        return np.stack([counted, sizes], axis=1).astype(np.float32)

    def _take_of(self, batch: np.ndarray) -> np.ndarray:
        part = np.array_split(batch, self.count)[self.index]
        return part if len(part) else batch[:1]


def get_index(devices: str | int | None) -> int:
    """Which worker this process is, according to --devices and the environment; 0 if alone.

    Raises:
        UsageError: `TF_CONFIG` is wrong, or there are no addresses of workers.
    """
    if devices != CLUSTER:
        return 0
    if "TF_CONFIG" in os.environ:
        return read_tf_config().index
    if "SLURM_PROCID" in os.environ:
        return int(os.environ["SLURM_PROCID"])
    raise UsageError(
        f"--devices {CLUSTER}",
        "requires the addresses of the workers",
        "no TF_CONFIG and no Slurm step",
        "Set TF_CONFIG, or start with srun (docs/parallel.md).",
    )


def read_tf_config() -> WorkerGroup:
    """The workers in the environment variable `TF_CONFIG`.

    Raises:
        UsageError: It is not JSON, or does not list workers and name one of them.
    """
    example = WorkerGroup(["host1:2222", "host2:2222"], 0).to_json()
    remedy = f"On the first machine it could be {example}."
    try:
        found = _TfConfig.model_validate_json(os.environ["TF_CONFIG"])
    except ValidationError as error:
        raise UsageError.from_validation("TF_CONFIG", error, _TfConfig, remedy) from error
    addresses, index = found.cluster.worker, found.task.index
    if index >= len(addresses):
        raise UsageError(
            "TF_CONFIG: task.index", f"must be below {len(addresses)}, the workers", index, remedy
        )
    return WorkerGroup(addresses, index)


def meet(group: WorkerGroup, seconds: float = MEETING_SECONDS) -> None:
    """Waits until all workers have started; TensorFlow would wait an hour and ignore Ctrl-C.

    The others call the first worker, on the port that TensorFlow will use, until it answers.

    Raises:
        UsageError: A worker does not start in time, or the first worker's port is in use.
    """
    host, _, port = group.addresses[0].rpartition(":")
    deadline = time.monotonic() + seconds
    try:
        if group.index:
            _call_first(host, int(port), group.index, deadline)
        else:
            _wait_for_others(int(port), len(group.addresses), deadline)
    except OSError as error:
        raise UsageError(
            f"worker {group.index}",
            f"must connect to all {len(group.addresses)} workers, the first at {host}:{port}",
            f"{error.strerror or error} ({seconds:.0f} s)",
            "Start all workers, and check addresses, ports and firewalls.",
        ) from error


def _wait_for_others(port: int, count: int, deadline: float) -> None:
    missing = set(range(1, count))
    calls = []
    with socket.create_server(("", port)) as server, ExitStack() as open_calls:
        while missing:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            call = open_calls.enter_context(server.accept()[0])
            call.settimeout(SECONDS_TO_SPEAK)
            with suppress(OSError):  # a caller need not be a worker
                missing.discard(int.from_bytes(call.recv(4), "big"))
            calls.append(call)
        for call in calls:
            with suppress(OSError):
                call.sendall(b"!")


def _call_first(host: str, port: int, index: int, deadline: float) -> None:
    while (left := deadline - time.monotonic()) > 0:
        with suppress(OSError), socket.create_connection((host, port), left) as call:
            call.sendall(index.to_bytes(4, "big"))
            if call.recv(1):
                return
        time.sleep(SECONDS_BETWEEN_CALLS)
    raise TimeoutError("no answer")


@contextmanager
def started_here(command: Sequence[str], count: int) -> Iterator[WorkerGroup]:
    """Starts the other workers of `count` on this machine; the first is this process.

    On leaving, they are waited for, or killed after an exception.
    """
    group = WorkerGroup([f"127.0.0.1:{port}" for port in _find_ports(count)], 0)
    with ExitStack() as processes:
        for index in range(1, count):
            tf_config = WorkerGroup(group.addresses, index).to_json()
            process = subprocess.Popen(
                [sys.executable, *command, "--devices", CLUSTER],
                env={**os.environ, "TF_CONFIG": tf_config},
                stdin=subprocess.DEVNULL,
            )
            processes.enter_context(_ending_with_this(process))
        yield group


@contextmanager
def _ending_with_this(process: subprocess.Popen) -> Iterator[None]:
    try:
        yield
    except BaseException:
        process.kill()
        raise
    finally:
        process.wait()


def _find_ports(count: int) -> list[int]:
    """Free ports of this machine, all found before any is used."""
    with ExitStack() as sockets:
        found = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]

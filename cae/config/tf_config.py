"""`TF_CONFIG`: the workers that train one model together, and which of them this process is.

A worker is a process with its own device and its own copy of the model. All run the same program
with the same flags. TensorFlow's guide to distributed training describes the variable; the tasks of
Slurm do without it.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from cae.config.choices import WORKERS
from cae.errors import UsageError


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


def get_index(devices: str | int | None) -> int:
    """Which worker this process is, according to --devices and the environment; 0 if alone.

    Raises:
        UsageError: `TF_CONFIG` is wrong, or there are no addresses of workers.
    """
    if devices != WORKERS:
        return 0
    if "TF_CONFIG" in os.environ:
        return read_tf_config().index
    if "SLURM_PROCID" in os.environ:
        return int(os.environ["SLURM_PROCID"])
    raise UsageError(
        f"--devices {WORKERS}",
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

"""One model trained by several workers, each on its share of every batch, by `tf.distribute`.

Every worker has the whole model on one device. Only sums over a batch (gradients, metrics, the
statistics of BatchNorm) involve all workers, so weights, metrics and the decisions based on them
are the same everywhere. Li et al. 2020, "PyTorch Distributed: experiences on accelerating data
parallel training", describes the scheme.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from cae.config.choices import WORKERS
from cae.config.tf_config import WorkerGroup, read_tf_config
from cae.errors import UsageError, UserError
from cae.training.batches import Share
from cae.training.layers import synchronized_batch_norm

if TYPE_CHECKING:
    from cae.training.steps import Objective

# What is raised in the other workers when one has ended.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
# Two Slurm jobs on one machine must not use the same ports; Linux hands out those above 32768.
SLURM_PORTS = range(16384, 32768)
PORTS_PER_JOB = 16
# How long workers wait for each other at the start: the nodes of a cluster may load slowly.
MEETING_SECONDS = 600
SECONDS_BETWEEN_CALLS = 0.5
SECONDS_TO_SPEAK = 5


class Workers:
    """The workers of one training, connected with each other.

    To be created before TensorFlow computes anything; waits until all workers are connected.

    Attributes:
        share: This worker's part of every batch.
    """

    def __init__(self, group: WorkerGroup):
        gpus = tf.config.list_physical_devices("GPU")
        if gpus:  # Slurm may let a task see only its own
            tf.config.set_visible_devices(gpus[group.index_on_host % len(gpus)], "GPU")
        os.environ["TF_CONFIG"] = group.to_json()
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy()
        self._gather = tf.function(lambda value: self.run(_gather, value))
        self.share = Share(group.index, len(group.addresses))

    def run(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function that sums over the workers, inside a compiled function."""
        return self._strategy.run(step, args=arguments)

    def gather(self, value: int) -> list[int]:
        """The value that each worker passes, in their order; waits for all of them."""
        return self._gather(tf.constant([value], tf.int64)).numpy().tolist()

    def check_same(self, **parts: Any) -> None:
        """Checks that all workers have the same JSON as each part of what they are about to do.

        Raises:
            UsageError: A part differs.
        """
        for name, part in parts.items():
            checksums = self.gather(zlib.crc32(json.dumps(part, sort_keys=True).encode()))
            different = [index for index, other in enumerate(checksums) if other != checksums[0]]
            if different:
                raise UsageError(
                    f"worker {different[0]}",
                    f"must have the {name} of worker 0 (checksum {checksums[0]:08x})",
                    f"checksum {checksums[different[0]]:08x}",
                    "Start all workers with the same command, on copies of the same files.",
                )

    def vary_random_states(self, model: keras.Model) -> None:
        """Gives Dropout different random numbers in every worker; worker 0 keeps its own.

        All other variables must have the same values everywhere.
        """
        for variable in model.variables:
            if variable.name == "seed_generator_state":  # a seed and a counter
                variable.assign(variable + keras.ops.convert_to_tensor([self.share.index, 0]))

    def share_batches(self, objective: "Objective") -> Callable[[tuple, bool], list[tf.Tensor]]:
        """A function of a batch that processes this worker's share and sums over all workers.

        Batches are (inputs, targets, counts), with the counts of `Share.get_counts`. Gradients and
        metrics come out as if one worker had processed the whole batch, to rounding; BatchNorm
        normalises by the whole batch.
        """
        model, counters = objective.model, objective.metric_variables

        def process_share(batch: tuple, training: bool) -> list[tf.Tensor]:
            """The sums of the gradients; the metrics count what all workers have counted."""
            *share, (counted, whole) = (*batch[:-1], tf.unstack(batch[-1]))
            before = [tf.identity(counter) for counter in counters]
            with tf.GradientTape() as tape, synchronized_batch_norm(model):
                # What this share contributes to the mean over the whole batch.
                contribution = objective(tuple(share), training) * counted / whole
            gradients = tape.gradient(contribution, model.trainable_variables) if training else []
            added = [
                (counter - value) * tf.minimum(counted, 1)
                for counter, value in zip(counters, before, strict=True)
            ]
            sums = tf.distribute.get_replica_context().all_reduce("sum", [*gradients, *added])
            sums, of_all = sums[: len(gradients)], sums[len(gradients) :]
            for counter, value, counts in zip(counters, before, of_all, strict=True):
                counter.assign(value + counts)
            return sums

        return lambda batch, training: self.run(process_share, batch, training)


def _gather(value: tf.Tensor) -> tf.Tensor:
    # A copy, because an argument is not on this worker's device yet.
    return tf.distribute.get_replica_context().all_gather(tf.identity(value), axis=0)


@contextmanager
def joined(devices: str | int, command: Sequence[str]) -> Iterator[Workers | None]:
    """Connects the workers that --devices requests; None if there is only one.

    Args:
        devices: The value of the flag.
        command: The program and its flags, which start the other workers on this machine.

    Raises:
        UsageError: There are fewer GPUs, the environment does not name the workers, one of them
            did not start, or Keras does not compute with TensorFlow.
        UserError: A worker was lost.
    """
    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            "--devices",
            "requires the TensorFlow backend of Keras",
            keras.backend.backend(),
            "Unset KERAS_BACKEND, or omit --devices.",
        )
    with ExitStack() as stack:
        if devices == WORKERS:
            group = read_tf_config() if "TF_CONFIG" in os.environ else find_slurm_group()
        else:
            group = stack.enter_context(started_here(command, count_devices(devices)))
        if len(group.addresses) == 1:
            yield None
            return
        meet(group)
        try:
            yield Workers(group)
        except LOST as error:
            task = re.search(r"task:(\d+)", str(error))
            raise UserError(
                "workers",
                "must all keep running until training ends",
                f"no answer from worker {task[1]}" if task else "no answer from one of them",
                "Read its output, then start all of them again, with --resume if it was printed.",
            ) from error


def count_devices(devices: str | int) -> int:
    """How many devices of this machine --devices requests.

    Raises:
        UsageError: There are fewer GPUs.
    """
    gpus = len(tf.config.list_physical_devices("GPU"))
    if devices == "all":
        return max(1, gpus)
    if devices > max(1, gpus):
        required = "must be at most the number of GPUs in this machine"
        raise UsageError("--devices", f"{required}, {gpus}", devices, "Use --devices all.")
    return devices


def find_slurm_group() -> WorkerGroup:
    """The tasks of a job step of Slurm, started by `srun`.

    Raises:
        UsageError: A variable of Slurm is missing, or Slurm numbers its tasks in another order.
    """
    try:
        tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
        first_port = SLURM_PORTS[int(os.environ["SLURM_JOB_ID"]) * PORTS_PER_JOB % len(SLURM_PORTS)]
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=first_port, gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False
        )
        addresses = resolver.cluster_spec().job_tasks("worker")
        node = os.environ["SLURMD_NODENAME"]
    except (KeyError, RuntimeError) as error:
        found = f"no {error.args[0]}" if isinstance(error, KeyError) else error
        raise UsageError(
            "Slurm", "must name the tasks of this step", found, "Start with srun."
        ) from error
    host = addresses[resolver.task_id].rpartition(":")[0]
    if host != node:  # TensorFlow sorts the nodes by name, as n1, n10, n2
        raise UsageError(
            "Slurm",
            f"task {resolver.task_id} must run on {host}, in the order of names",
            node,
            "Name the workers in TF_CONFIG instead.",
        )
    return WorkerGroup(addresses, resolver.task_id)


# --- Meeting ----------------------------------------------------------------------------------


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
    group = WorkerGroup([f"127.0.0.1:{port}" for port in find_ports(count)], 0)
    with ExitStack() as processes:
        for index in range(1, count):
            tf_config = WorkerGroup(group.addresses, index).to_json()
            process = subprocess.Popen(
                [sys.executable, *command, "--devices", WORKERS],
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


def find_ports(count: int) -> list[int]:
    """Free ports of this machine, all found before any is used."""
    with ExitStack() as sockets:
        found = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]

"""One model trained by several workers: each computes its share of every batch, by `tf.distribute`.

Keras 3's `fit` cannot run `MultiWorkerMirroredStrategy`. Here Keras sees an ordinary model on one
device, in every worker; only the sums over a batch (gradients, metrics, the statistics of
BatchNorm) go over all workers, so weights, metrics and whatever callbacks decide by them are the
same everywhere. Li et al. 2020, "PyTorch Distributed: experiences on accelerating data parallel
training", describes the scheme.
"""

import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import tensorflow as tf

from cae.errors import UsageError, UserError
from cae.training.layers import synchronized_batch_norm
from cae.training.workers import CLUSTER, Cluster, Share, meet, read_tf_config, started_here

# What is raised in the others when a worker has ended.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
# Two jobs of Slurm on one machine may not use the same ports; above 32768 Linux gives them away.
SLURM_PORTS = range(16384, 32768)
PORTS_A_JOB = 16


class Workers:
    """The workers of one training, each connected with all others.

    Must be made before TensorFlow computes anything; waits until all workers have come.

    Args:
        cluster: Where they are.

    Attributes:
        share: Which part of every batch is this worker's.
    """

    def __init__(self, cluster: Cluster):
        gpus = tf.config.list_physical_devices("GPU")
        if gpus:  # Slurm may show a task only its own
            tf.config.set_visible_devices(gpus[cluster.index_on_host % len(gpus)], "GPU")
        os.environ["TF_CONFIG"] = cluster.to_json()
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy()
        self._gather = tf.function(lambda value: self.run(_gather, value))
        self.share = Share(cluster.index, len(cluster.addresses))

    def run(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function that sums over the workers; inside of a compiled one."""
        return self._strategy.run(step, args=arguments)

    def gather(self, value: int) -> list[int]:
        """The value that each worker gives, in their order; waits for all of them."""
        return self._gather(tf.constant([value], tf.int64)).numpy().tolist()

    def check_same(self, description: Any) -> None:
        """Checks that all workers are about to do the same.

        Args:
            description: What, as JSON.

        Raises:
            UsageError: The descriptions differ.
        """
        checksums = self.gather(zlib.crc32(json.dumps(description, sort_keys=True).encode()))
        different = [index for index, other in enumerate(checksums) if other != checksums[0]]
        if different:
            raise UsageError(
                f"worker {different[0]}",
                "must have the configuration and the data of worker 0",
                "others",
                "Start all workers with the same command, on copies of the same files.",
            )

    def vary_random_states(self, model: keras.Model) -> None:
        """Lets Dropout draw other numbers in every worker; those of worker 0 stay.

        All other variables must have the same values everywhere.
        """
        for variable in model.variables:
            if variable.name == "seed_generator_state":  # a seed and a counter
                variable.assign(variable + keras.ops.convert_to_tensor([self.share.index, 0]))


def _gather(value: tf.Tensor) -> tf.Tensor:
    # A copy, because what comes from outside is not on this worker's device yet.
    return tf.distribute.get_replica_context().all_gather(tf.identity(value), axis=0)


class DataParallel(keras.Model):
    """A model whose `fit` takes this worker's share of every batch and sums over all workers.

    Its batches are (inputs, targets, counts), with the counts of `Share.get_counts`. Gradients and
    metrics come out as if one worker had processed the whole batch, to rounding.

    Args:
        trained: A functional model; the layers are shared with it.
        workers: All workers.
    """

    def __init__(self, trained: keras.Model, workers: Workers):
        super().__init__(trained.inputs, trained.outputs, name=trained.name)
        self._workers = workers

    def compile(self, *, metrics: list[keras.metrics.Metric], **arguments: Any) -> None:
        """As of `keras.Model`, with one metric, and one step an execution."""
        # TensorFlow cannot compile what connects the workers into Keras' loop over several steps.
        super().compile(**arguments | {"steps_per_execution": 1})
        # Keras makes the variables of metrics it is compiled with in the middle of the first step.
        (self._metric,) = metrics

    def fit(self, *arguments: Any, **keywords: Any) -> Any:
        """As of `keras.Model`; BatchNorm normalises by the whole batch."""
        with synchronized_batch_norm(self):
            return super().fit(*arguments, **keywords)

    def train_step(self, batch: tuple) -> dict[str, Any]:
        """Changes the weights by one batch."""
        gradients = self._workers.run(self._compute_gradients, *batch)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return self.get_metrics_result()

    def test_step(self, batch: tuple) -> dict[str, Any]:
        """Measures one batch."""
        self._workers.run(self._measure, *batch)
        return self.get_metrics_result()

    def _compute_gradients(self, inputs: Any, targets: Any, counts: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            outputs = self(inputs, training=True)
            loss = self._get_loss(inputs, targets, outputs)
            # What this share contributes to the mean over the whole batch.
            contribution = loss * counts[0] / counts[1]
        gradients = tape.gradient(contribution, self.trainable_variables)
        return self._sum_and_count(gradients, loss, targets, outputs, counts)

    def _measure(self, inputs: Any, targets: Any, counts: tf.Tensor) -> list[tf.Tensor]:
        outputs = self(inputs, training=False)
        loss = self._get_loss(inputs, targets, outputs)
        return self._sum_and_count([], loss, targets, outputs, counts)

    def _get_loss(self, inputs: Any, targets: Any, outputs: Any) -> tf.Tensor:
        """The mean over this share; Keras has divided it by the number of workers."""
        return self.compute_loss(inputs, targets, outputs) * self._workers.share.count

    def _sum_and_count(
        self,
        gradients: list[tf.Tensor],
        loss: tf.Tensor,
        targets: Any,
        outputs: Any,
        counts: tf.Tensor,
    ) -> list[tf.Tensor]:
        """The sums of the gradients, after adding what all workers counted to the metrics."""
        loss_tracker, metric = self.metrics
        counters = [*loss_tracker.variables, *metric.variables]
        before = [tf.identity(counter) for counter in counters]
        loss_tracker.update_state(loss, sample_weight=counts[0])
        metric.update_state(targets, outputs)
        counted = [
            (counter - value) * tf.minimum(counts[0], 1)
            for counter, value in zip(counters, before, strict=True)
        ]
        sums = tf.distribute.get_replica_context().all_reduce("sum", [*gradients, *counted])
        for counter, value, added in zip(counters, before, sums[len(gradients) :], strict=True):
            counter.assign(value + added)
        return sums[: len(gradients)]


@contextmanager
def joined(devices: str | int, command: Sequence[str]) -> Iterator[Workers | None]:
    """Connects the workers that --devices asks for.

    Args:
        devices: The value of the flag.
        command: The program and its flags, by which other workers of this machine are started.

    Yields:
        The workers; None where there is a single one.

    Raises:
        UsageError: There are not so many GPUs, the environment does not name the workers, or one
            did not come.
        UserError: A worker was lost.
    """
    with ExitStack() as stack:
        if devices == CLUSTER:
            cluster = _find_cluster()
        else:
            cluster = stack.enter_context(started_here(command, count_devices(devices)))
        if len(cluster.addresses) == 1:
            yield None
            return
        meet(cluster)
        try:
            yield Workers(cluster)
        except LOST as error:
            task = re.search(r"task:(\d+)", str(error))
            raise UserError(
                "workers",
                "all of them must go on until the end",
                f"no answer from worker {task[1]}" if task else "no answer from one",
                "See what it says, then start all again, with --resume if that was said.",
            ) from error


def count_devices(devices: str | int) -> int:
    """How many devices of this machine --devices asks for.

    Raises:
        UsageError: There are not so many GPUs.
    """
    found = max(1, len(tf.config.list_physical_devices("GPU")))
    if devices == "all":
        return found
    if devices > found:
        raise UsageError(
            f"--devices {devices}",
            "must be no more than the GPUs of this machine",
            f"{found} device" + "s" * (found > 1),
            "Use --devices all.",
        )
    return devices


def _find_cluster() -> Cluster:
    return read_tf_config() if "TF_CONFIG" in os.environ else find_slurm_cluster()


def find_slurm_cluster() -> Cluster:
    """The tasks of a job step of Slurm, started by `srun`.

    Raises:
        UsageError: Slurm does not say enough, or numbers its tasks in another order.
    """
    try:
        tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
        first_port = SLURM_PORTS[int(os.environ["SLURM_JOB_ID"]) * PORTS_A_JOB % len(SLURM_PORTS)]
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=first_port, gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False
        )
        addresses = resolver.cluster_spec().job_tasks("worker")
        node = os.environ["SLURMD_NODENAME"]
    except (KeyError, RuntimeError) as error:
        raise UsageError("Slurm", "must say who works", error, "Start with srun.") from error
    host = addresses[resolver.task_id].rpartition(":")[0]
    if host != node:  # TensorFlow sorts the nodes by name, as n1, n10, n2
        raise UsageError(
            "Slurm",
            f"task {resolver.task_id} must run on {host}, by the order of names",
            node,
            "Name the workers by TF_CONFIG.",
        )
    return Cluster(addresses, resolver.task_id)

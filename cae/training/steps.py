"""One step, compiled: what it computes from a batch (`Objective`), and how each backend runs it.

TensorFlow changes variables in place and repeats a step inside one execution. JAX compiles pure
functions: variables go in and come out as arrays (https://keras.io/guides/custom_train_step_in_jax).
"""

import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from cae.training.data_parallel import Workers

# (inputs, targets), of any backend or of NumPy.
Batch = tuple[Any, ...]


class Objective:
    """What a step computes: the loss to minimise, and the metrics to report.

    The loop does not look into batches: a subclass can read others than (inputs, targets), such as
    labelled and unlabelled images together.

    Args:
        model: What is trained; a functional model. A second output is the target of the first.
        loss: Name of a Keras loss, or a function of targets and outputs.
        metric: Reported beside the loss; its result may be a dict.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: str | Callable[[Any, Any], Any],
        metric: keras.metrics.Metric,
    ):
        self.model = model
        self.metrics = [keras.metrics.Mean(name="loss"), metric]
        self._loss = keras.losses.get(loss)

    def __call__(self, batch: Batch, training: bool) -> Any:
        """The mean loss of a batch with the L2 penalty, a scalar; updates the metrics."""
        inputs, targets = batch
        outputs = self.model(inputs, training=training)
        if isinstance(outputs, list | tuple):
            outputs, targets = outputs
        loss = ops.mean(self._loss(targets, outputs)) + sum(self.model.losses)
        self._count(loss, targets, outputs)
        return loss

    def _count(self, loss: Any, targets: Any, outputs: Any) -> None:
        mean_loss, metric = self.metrics
        mean_loss.update_state(loss, sample_weight=ops.shape(targets)[0])
        metric.update_state(targets, outputs)

    @property
    def metric_variables(self) -> list[keras.Variable]:
        """What the metrics have counted since the last reset."""
        return [variable for metric in self.metrics for variable in metric.variables]

    @property
    def state(self) -> list[keras.Variable]:
        """What training changes besides the kept model, the optimizer and the metrics."""
        return []

    def begin_epoch(self, epoch: int) -> None:
        """Called before the first step of an epoch, counted from 0."""

    def finish_step(self) -> None:
        """Called after every change of the weights."""

    def reset_metrics(self) -> None:
        """Starts counting anew."""
        for metric in self.metrics:
            metric.reset_state()

    def get_results(self) -> dict[str, Any]:
        """The value of every metric, by name."""
        results = {}
        for metric in self.metrics:
            result = metric.result()
            results |= result if isinstance(result, dict) else {metric.name: result}
        return results


class Steps(NamedTuple):
    """The compiled functions of an objective; two take a number of batches from an iterator."""

    train: Callable[[Iterator[Batch], int], None]  # updates weights and metrics
    evaluate: Callable[[Iterator[Batch], int], None]  # updates metrics alone
    get_results: Callable[[], dict[str, Any]]


def compile_steps(
    objective: Objective,
    optimizer: keras.optimizers.Optimizer,
    workers: Workers | None = None,
) -> Steps:
    """Compiles an objective for Keras' backend, or for several workers."""
    if keras.backend.backend() == "jax":
        return compile_for_jax(objective, optimizer)
    return compile_for_tensorflow(objective, optimizer, workers)


def compile_for_tensorflow(
    objective: Objective, optimizer: keras.optimizers.Optimizer, workers: Workers | None
) -> Steps:
    """Batches of `tf.data` are taken within one execution, arrays of NumPy one by one."""
    weights = objective.model.trainable_variables
    # XLA gains time on a GPU, but not on Apple's, which it lacks; on a CPU oneDNN is faster.
    has_xla = bool(tf.config.list_physical_devices("GPU")) and sys.platform != "darwin"
    use_xla = has_xla and workers is None

    def differentiate(batch: Batch, training: bool) -> list[tf.Tensor]:
        """The gradients of the loss, if `training`; updates the metrics."""
        with tf.GradientTape() as tape:
            loss = objective(batch, training)
        return tape.gradient(loss, weights) if training else []

    if workers:
        differentiate = workers.share_batches(objective)

    def train(batch: Batch) -> None:
        optimizer.apply(differentiate(batch, True), weights)
        objective.finish_step()

    def evaluate(batch: Batch) -> None:
        differentiate(batch, False)

    def repeat(step: Callable[[Batch], None]) -> Callable[[Iterator[Batch], int], None]:
        step = tf.function(step, reduce_retracing=True, autograph=False, jit_compile=use_xla)

        @tf.function  # AutoGraph makes a loop of TensorFlow's out of this one
        def execute(batches: tf.data.Iterator, count: tf.Tensor) -> None:
            for _ in tf.range(count):
                step(next(batches))

        def run(batches: Iterator[Batch], count: int) -> None:
            # TensorFlow cannot compile what connects the workers into a loop.
            if isinstance(batches, tf.data.Iterator) and workers is None:
                execute(batches, tf.constant(count))
            else:
                for batch in islice(batches, count):
                    step(batch)

        return run

    get_results = tf.function(objective.get_results, autograph=False)
    return Steps(repeat(train), repeat(evaluate), get_results)


def compile_for_jax(objective: Objective, optimizer: keras.optimizers.Optimizer) -> Steps:
    """State leaves the variables before an execution and returns to them after it."""
    import jax

    model = objective.model
    weights = model.trainable_variables
    others = [*model.non_trainable_variables, *objective.metric_variables]
    variables = (weights, others, optimizer.variables)

    def compute(weight_values: list, other_values: list, batch: Batch, training: bool) -> tuple:
        """The loss, and the new values of what is not trained by it."""
        values = zip([*weights, *others], [*weight_values, *other_values], strict=True)
        with keras.StatelessScope(values) as scope:
            loss = objective(batch, training)
        return loss, [scope.get_current_value(variable) for variable in others]

    @jax.jit
    def train(state: tuple, batch: Batch) -> tuple:
        weight_values, other_values, optimizer_values = state
        gradients, other_values = jax.grad(compute, has_aux=True)(
            weight_values, other_values, batch, True
        )
        weight_values, optimizer_values = optimizer.stateless_apply(
            optimizer_values, gradients, weight_values
        )
        return weight_values, other_values, optimizer_values

    @jax.jit
    def evaluate(state: tuple, batch: Batch) -> tuple:
        weight_values, other_values, optimizer_values = state
        _, other_values = compute(weight_values, other_values, batch, False)
        return weight_values, other_values, optimizer_values

    def repeat(step: Callable[[tuple, Batch], tuple]) -> Callable[[Iterator[Batch], int], None]:
        def run(batches: Iterator[Batch], count: int) -> None:
            state = tuple([variable.value for variable in group] for group in variables)
            for batch in islice(batches, count):
                state = step(state, tuple(map(np.asarray, batch)))
            for group, values in zip(variables, state, strict=True):
                for variable, value in zip(group, values, strict=True):
                    variable.assign(value)

        return run

    return Steps(repeat(train), repeat(evaluate), objective.get_results)

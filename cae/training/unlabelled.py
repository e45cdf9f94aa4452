"""Training on labelled and unlabelled images together: a student that learns from its own teacher.

In every step a student sees labelled images and strongly changed unlabelled ones. The
pseudo-labels of the latter come from two sources, of which a configuration uses one or both:

- label spreading, before training and again during it: labels travel along a graph of near
  neighbours (Zhou et al. 2004, "Learning with local and global consistency"; with the network's
  own encodings, Iscen et al. 2019, "Label propagation for deep semi-supervised learning"), and the
  most confident of them are kept;
- a teacher, in every step: the moving average of the student (Tarvainen & Valpola 2017, "Mean
  teachers are better role models") predicts the class of a weakly changed view of an image that
  has no spread label, which counts where it is confident (Sohn et al. 2020, "FixMatch").

The teacher is the model that is kept.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from cae import terminal
from cae.config.fields import LabelSpreading, Unlabelled
from cae.config.schema import ClassifierConfig
from cae.data.datasets import Scaling
from cae.data.splits import NO_CLASS
from cae.errors import Say
from cae.records.calibration import TINY
from cae.training.batches import Batches
from cae.training.predict import predict
from cae.training.steps import Batch, Objective

Loss = str | Callable[[Any, Any], Any]
# Images, their class indices, and which of them to train on.
Labelled = tuple[np.ndarray, np.ndarray, np.ndarray]

# Labels travel this many edges.
SPREADING_ROUNDS = 50
# Rescalings of the columns to the prior, each followed by one of the rows to 1.
PRIOR_ROUNDS = 20
# Spread labels are aligned with the prior if this part of the images, or less, has to change class.
# docs/experiments.md says why, under "Classes of unequal size".
MOST_DIFFERENT = 0.15
# Most values of an encoding or image in the graph; more are reduced to their principal components.
GRAPH_DIMENSIONS = 128
# In the search for neighbours: similarities of which one maximum is taken, and those in memory.
NEIGHBOUR_GROUP = 32
SIMILARITIES_AT_ONCE = 15_000_000
# Similar neighbours count more: cosine to this power.
SIMILARITY_POWER = 3
# Share of the batches before in the running mean of the predictions.
PREDICTIONS_MOMENTUM = 0.99
RAREST = 1e-3  # least share of a class in a batch, before predictions are divided by it
# From so many images of a batch the teacher's BatchNorm is measured, or from a quarter of it.
LEAST_MEASURED = 32


class Plan:
    """What a phase with unlabelled images needs: their first labels, batches, and an objective.

    Args:
        model: The classifier before its training.
        config: Its hyperparameters, with the key `unlabelled`.
        labelled: The labelled images, their class indices, and which of them to train on.
        unlabelled: (num_unlabelled, height, width, channels) in the file's dtype.
        scaling: Brings all images to [0, 1].
        warn: Receives a sentence if the labels seem to have other shares than the images.
    """

    def __init__(
        self,
        model: keras.Model,
        config: ClassifierConfig,
        labelled: Labelled,
        unlabelled: np.ndarray,
        scaling: Scaling,
        warn: Say,
    ):
        self._config, self._how = config, config.unlabelled
        self._encoder = model.get_layer("encoder")
        self._labelled, self._unlabelled, self._scaling = labelled, unlabelled, scaling
        _, targets, training = labelled
        self._shares = get_shares(targets[training], model.output_shape[-1])
        self.prior = self._shares
        self.labels = np.full(len(unlabelled), NO_CLASS)
        if self._how.label_spreading:
            on_pixels = self._how.label_spreading.on == "pixels"
            with terminal.announcing(f"Spreading labels to {len(unlabelled):,} images"):
                self._features = self._encode(None if on_pixels else self._encoder)
                spread = self._spread(self._features)
                self.labels = self._keep(spread, self._how.label_spreading.share)
            if not spread.is_aligned:
                self.prior = np.maximum(spread.shares, RAREST)
            if not spread.is_aligned and self._how.label_spreading.align == "auto":
                different = get_distance(spread.shares, self._shares)
                warn(
                    "The classes seem to have other shares among the unlabelled images than among "
                    f"the labels: {different:.0%} of the images would have to change class. So the "
                    "spread labels are not aligned with the labels."
                )

    def teach(
        self,
        teacher: keras.Model,
        student: keras.Model,
        metric: keras.metrics.Metric,
        loss: Loss,
        epochs: int,
    ) -> "Teaching":
        """The objective of a phase of so many epochs; see `Teaching`."""
        labels, again = self.labels, partial(self.spread_again, epochs=epochs)
        return Teaching(teacher, student, loss, metric, self._how, self.prior, labels, again)

    def spread_again(self, epoch: int, epochs: int) -> np.ndarray:
        """New labels from an epoch of the phase on.

        They follow the encodings of the classifier so far, beside those before training.
        """
        with terminal.announcing("Spreading labels again"):
            encodings = self._encode(self._encoder)
            features = np.concatenate([self._features, encodings], axis=1)
            return self._keep(self._spread(features), self._get_share(epoch, epochs))

    def get_batches(self) -> "JointBatches":
        """The batches of the phase: in an epoch all unlabelled images, the others as often as fit.

        All batches are full, and over the epochs every image comes equally often.
        """
        seed, batch_size = self._config.seed, self._config.batch_size
        every = np.arange(len(self._unlabelled))
        steps = self._config.count_steps(0, len(every))
        unlabelled = Batches(
            self._unlabelled,
            every,
            self._how.batch_size,
            seed,
            images_per_epoch=steps * self._how.batch_size,
            targets=every,
            scaling=self._scaling,
            augmentation=self._how.weak,
            second_view=self._how.strong,
        )
        images, targets, training = self._labelled
        labelled = Batches(
            images,
            training,
            batch_size,
            seed,
            images_per_epoch=steps * batch_size,
            targets=targets,
            scaling=self._scaling,
            augmentation=self._config.augmentation,
        )
        return JointBatches(labelled, unlabelled)

    def _encode(self, encoder: keras.Model | None) -> np.ndarray:
        """Unit vectors of the labelled, then the unlabelled images: of encodings, or of pixels."""
        images, _, training = self._labelled
        parts = [(images, training), (self._unlabelled, np.arange(len(self._unlabelled)))]
        if encoder is None:
            features = [self._scaling.apply(part[chosen]) for part, chosen in parts]
        else:
            features = [predict(encoder, part, self._scaling, chosen) for part, chosen in parts]
        rows = np.concatenate(features).reshape(sum(map(len, features)), -1)
        return _to_unit_length(rows - rows.mean(axis=0))

    def _get_share(self, epoch: int, epochs: int) -> float:
        """Which share of the images keeps its label from an epoch on; even steps to the last."""
        how = self._how.label_spreading
        if how.last_share is None:
            return how.share
        last = (epochs - 1) // how.refresh * how.refresh
        return how.share + (how.last_share - how.share) * epoch / last

    def _spread(self, features: np.ndarray) -> "Spread":
        _, targets, training = self._labelled
        known = np.concatenate([targets[training], np.full(len(self._unlabelled), NO_CLASS)])
        return spread_labels(features, known, self._shares, self._how.label_spreading)

    def _keep(self, spread: "Spread", share: float) -> np.ndarray:
        """int64 (num_unlabelled,): class indices, or NO_CLASS."""
        return keep_confident(spread.labels[-len(self._unlabelled) :], share)


def plan_unlabelled(
    model: keras.Model,
    config: ClassifierConfig,
    labelled: Labelled,
    unlabelled: np.ndarray | None,
    scaling: Scaling,
    warn: Say,
) -> Plan | None:
    """The plan for images without labels; None if the configuration has no key `unlabelled`.

    Arguments are those of `Plan`.

    Raises:
        UserError: As `config.check_unlabelled`.
    """
    config.check_unlabelled(0 if unlabelled is None else len(unlabelled))
    if config.unlabelled is None:
        return None
    return Plan(model, config, labelled, unlabelled, scaling, warn)


class JointBatches:
    """Labelled and unlabelled batches side by side, as one epoch of the unlabelled images.

    Attributes:
        steps: As for `Batches`.
        steps_per_execution: As for `Batches`.
        batch_size: Labelled and unlabelled images in a step.
    """

    def __init__(self, labelled: Batches, unlabelled: Batches):
        self.steps = unlabelled.steps
        self.steps_per_execution = unlabelled.steps_per_execution
        self.batch_size = labelled.batch_size + unlabelled.batch_size
        self._parts = labelled, unlabelled

    def iterate(self, epoch: int = 0, first_step: int = 0) -> Iterator[tuple[Batch, Batch]]:
        """The pairs of batches of an epoch; see `Batches.iterate`."""
        parts = (part.get_dataset(epoch, first_step) for part in self._parts)
        return iter(tf.data.Dataset.zip(tuple(parts)))


class Teaching(Objective):
    """The loss of a student on labelled images and on the pseudo-labels of unlabelled ones.

    Batches of training are ((images, targets), (weak views, strong views, positions)), with the
    positions in `labels`; those of validation are (images, targets), and validate the teacher.

    Args:
        teacher: The model to keep.
        student: A copy of it, which is trained.
        loss: As for `Objective`, of the labelled images.
        metric: As for `Objective`, of the student's predictions in training.
        how: The key `unlabelled` of the configuration.
        prior: float32 (num_classes,), the share of each class.
        labels: int (num_unlabelled,), class indices, or NO_CLASS.
        spread_again: Returns new ones for the epochs from one on.
    """

    def __init__(
        self,
        teacher: keras.Model,
        student: keras.Model,
        loss: Loss,
        metric: keras.metrics.Metric,
        how: Unlabelled,
        prior: np.ndarray,
        labels: np.ndarray,
        spread_again: Callable[[int], np.ndarray],
    ):
        super().__init__(student, loss, metric)
        self._teacher, self._how, self._prior = teacher, how, prior
        self._spread_again = spread_again
        self._labels = keras.Variable(labels, trainable=False, dtype="int32", name="labels")
        self._predictions = keras.Variable(prior, trainable=False, name="predictions")
        self._steps = keras.Variable(0.0, trainable=False, name="steps")

    @property
    def state(self) -> list[keras.Variable]:
        """What training changes besides the model that is kept."""
        return [*self.model.variables, self._labels, self._predictions, self._steps]

    def __call__(self, batch: Batch, training: bool) -> Any:
        """The loss of a batch, a scalar; updates the metrics."""
        if not training:
            return self._evaluate(*batch)
        (images, targets), (weak, strong, positions) = batch
        count = ops.shape(images)[0]
        outputs = self.model(ops.concatenate([images, strong]), training=True)
        pseudo_labels, weights = self._label(weak, positions)
        labelled = ops.mean(self._loss(targets, outputs[:count]))
        unlabelled = keras.losses.categorical_crossentropy(pseudo_labels, outputs[count:])
        loss = labelled + self._how.weight * ops.mean(weights * unlabelled)
        loss += sum(self.model.losses)
        self._count(loss, targets, outputs[:count])
        return loss

    def begin_epoch(self, epoch: int) -> None:
        """Spreads the labels again, where the configuration says so."""
        how = self._how.label_spreading
        if how and how.refresh and epoch and epoch % how.refresh == 0:
            self._labels.assign(self._spread_again(epoch))

    def finish_step(self) -> None:
        """Moves the teacher towards the student; faster at first, when the student changes most.

        Its BatchNorm has statistics of its own, of weak views: those of strong ones would not fit
        the images as they are.
        """
        self._steps.assign_add(1.0)
        keep = ops.minimum(self._how.ema, self._steps / (self._steps + 10))
        weights = self._teacher.trainable_variables, self.model.trainable_variables
        for kept, new in zip(*weights, strict=True):
            kept.assign(keep * kept + (1 - keep) * new)

    def _evaluate(self, images: Any, targets: Any) -> Any:
        outputs = self._teacher(images, training=False)
        loss = ops.mean(self._loss(targets, outputs)) + sum(self._teacher.losses)
        self._count(loss, targets, outputs)
        return loss

    def _label(self, weak: Any, positions: Any) -> tuple[Any, Any]:
        """Pseudo-labels, (batch, num_classes), and their weights, (batch,)."""
        labels = ops.one_hot(ops.take(self._labels, positions), len(self._prior))
        is_labelled = ops.max(labels, axis=1)  # no row of one_hot(NO_CLASS) holds a 1
        rule = self._how.pseudo_labels
        if rule is None:
            part = weak[: max(self._how.batch_size // 4, LEAST_MEASURED)]
            self._teacher(part, training=True)  # for its BatchNorm alone
            return labels, is_labelled
        predictions = self._teacher(weak, training=True)  # also for its BatchNorm
        predictions = ops.stop_gradient(predictions)
        if rule.align:
            predictions = self._align(predictions)
        is_confident = ops.cast(ops.max(predictions, axis=1) > rule.threshold, "float32")
        if rule.temperature < 1:  # as logits, because powers of small probabilities would be 0
            predictions = ops.softmax(ops.log(predictions + TINY) / rule.temperature)
        labels = ops.where(is_labelled[:, None] > 0, labels, predictions)
        return labels, ops.maximum(is_labelled, is_confident)

    def _align(self, predictions: Any) -> Any:
        """Predictions whose classes are as frequent as among the labels.

        Berthelot et al. 2020, "ReMixMatch", section 3.1.
        """
        mean = ops.mean(predictions, axis=0)
        mean = PREDICTIONS_MOMENTUM * self._predictions + (1 - PREDICTIONS_MOMENTUM) * mean
        self._predictions.assign(mean)
        aligned = predictions * (self._prior / ops.maximum(mean, RAREST))
        return aligned / ops.sum(aligned, axis=1, keepdims=True)


class Spread(NamedTuple):
    """Labels that were spread along a graph.

    Attributes:
        labels: float32 (num_images, num_classes), rows that sum to 1, or of zeros for images that
            no label reaches.
        shares: float32 (num_classes,), of the classes, before any alignment.
        is_aligned: Whether classes have become as frequent as the prior says.
    """

    labels: np.ndarray
    shares: np.ndarray
    is_aligned: bool


def spread_labels(
    features: np.ndarray, targets: np.ndarray, prior: np.ndarray, config: LabelSpreading
) -> Spread:
    """Spreads labels to all images, along a graph of neighbours.

    Args:
        features: float (num_images, num_values), compared by the cosine.
        targets: int (num_images,), class indices; NO_CLASS where an image has no label.
        prior: float (num_classes,), the share of each class among the images that labels reach.
        config: How they spread.
    """
    from scipy import sparse

    similarity = _get_graph(features, config.neighbours)
    degrees = np.sqrt(np.asarray(similarity.sum(axis=1)).ravel())
    scale = sparse.diags(1 / np.maximum(degrees, np.finfo(np.float32).tiny))
    edges = (scale @ similarity @ scale).astype(np.float32)
    given = np.zeros((len(features), len(prior)), np.float32)
    labelled = np.flatnonzero(targets != NO_CLASS)
    given[labelled, targets[labelled]] = 1
    spread = given
    for _ in range(SPREADING_ROUNDS):
        spread = config.alpha * (edges @ spread) + (1 - config.alpha) * given
    spread = _normalize(spread)
    is_reached = spread.any(axis=1)
    shares = get_shares(spread[is_reached].argmax(axis=1), len(prior))
    is_alike = get_distance(shares, prior) <= MOST_DIFFERENT
    if config.align == "never" or (config.align == "auto" and not is_alike):
        return Spread(spread, shares, is_aligned=False)
    for _ in range(PRIOR_ROUNDS):
        mean = spread.sum(axis=0) / max(1, np.count_nonzero(is_reached))
        spread = _normalize(spread * (prior / np.maximum(mean, TINY)).astype(np.float32))
    return Spread(spread, shares, is_aligned=True)


def get_shares(targets: np.ndarray, num_classes: int) -> np.ndarray:
    """float32 (num_classes,): the share of each class among class indices."""
    counts = np.bincount(targets, minlength=num_classes)
    return (counts / max(1, counts.sum())).astype(np.float32)


def get_distance(shares: np.ndarray, others: np.ndarray) -> float:
    """The part of the images that would have to change class: the total variation distance."""
    return float(np.abs(shares - others).sum() / 2)


def keep_confident(spread: np.ndarray, share: float) -> np.ndarray:
    """Keeps the most confident labels of each class.

    Args:
        spread: float32 (num_images, num_classes), rows that sum to 1, or of zeros.
        share: Of the images of each class.

    Returns:
        int64 (num_images,): the class of each image that keeps it, otherwise NO_CLASS.
    """
    classes, confidence = spread.argmax(axis=1), spread.max(axis=1)
    kept = np.full(len(spread), NO_CLASS)
    for index in range(spread.shape[1]):
        members = np.flatnonzero((classes == index) & (confidence > 0))
        best = members[np.argsort(-confidence[members], kind="stable")]
        kept[best[: round(share * len(members))]] = index
    return kept


def _normalize(spread: np.ndarray) -> np.ndarray:
    sums = spread.sum(axis=1, keepdims=True)
    return spread / np.where(sums > 0, sums, 1)


def _get_graph(features: np.ndarray, neighbours: int) -> Any:
    """The similarity of each image and its neighbours, a symmetric sparse matrix."""
    from scipy import sparse
    from sklearn.decomposition import PCA

    count = len(features)
    if min(features.shape) > GRAPH_DIMENSIONS:
        components = PCA(GRAPH_DIMENSIONS, svd_solver="randomized", random_state=0)
        features = components.fit_transform(features)
    neighbours = min(neighbours, count - 1)
    found, cosines = find_neighbours(_to_unit_length(features), neighbours)
    starts = np.repeat(np.arange(count), neighbours)
    similarities = cosines.ravel().clip(min=0) ** SIMILARITY_POWER
    graph = sparse.csr_matrix((similarities, (starts, found.ravel())), (count, count))
    return graph.maximum(graph.T)


def find_neighbours(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows most similar to each row.

    Sorting out the largest of many numbers is slow, their maximum is fast: the `count` largest
    numbers lie in the groups with the `count` largest maxima, and only these are looked into.

    Args:
        rows: float32 (num_rows, num_values), of length 1.
        count: Less than num_rows.

    Returns:
        Their positions, int32, and cosines, float32, both (num_rows, count), the nearest first.
    """
    size = NEIGHBOUR_GROUP if len(rows) >= NEIGHBOUR_GROUP * (count + 1) else 1
    padding = -len(rows) % size
    others = tf.constant(rows.T.copy())

    @tf.function
    def search(part: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        cosines = tf.pad(part @ others, [[0, 0], [0, padding]], constant_values=-2.0)
        groups = tf.reshape(cosines, (len(part), -1, size))
        _, best = tf.math.top_k(tf.reduce_max(groups, axis=2), count + 1, sorted=False)
        candidates = tf.reshape(tf.gather(groups, best, batch_dims=1), (len(part), -1))
        cosines, places = tf.math.top_k(candidates, count + 1)
        return tf.gather(best, places // size, batch_dims=1) * size + places % size, cosines

    at_once = max(1, SIMILARITIES_AT_ONCE // len(rows))
    parts = [search(rows[first : first + at_once]) for first in range(0, len(rows), at_once)]
    found, cosines = map(np.concatenate, zip(*parts, strict=True))
    is_other = found != np.arange(len(rows))[:, np.newaxis]
    is_other[is_other.all(axis=1), -1] = False  # as many equal rows come first
    return tuple(values[is_other].reshape(-1, count) for values in (found, cosines))


def _to_unit_length(rows: np.ndarray) -> np.ndarray:
    """float32 rows of length 1, or of zeros."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.where(lengths > 0, lengths, 1), np.float32)

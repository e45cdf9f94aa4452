"""Terms and rates that were tried in the recipe for few labels: `checks.py trials`.

They did not earn a key. The check stays in the history, so that its numbers can be repeated.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import keras
from keras import ops

from cae.training import unlabelled
from cae.training.steps import Batch

AMOUNTS = {
    "mutual information, weight 0.1": {"mutual_information": 0.1},
    "reconstruction, weight 1": {"reconstruction": 1.0},
    "pseudo-labels smoothed by 0.1": {"smoothing": 0.1},
    "a third of the rate for the encoder": {"encoder_rate": 1 / 3},
}


class Teaching(unlabelled.Teaching):
    """The objective with further terms."""

    amounts: ClassVar[dict[str, float]] = {}
    # Frozen; redraws the weak view from the encoding of the student.
    decoder: ClassVar[keras.Model | None] = None
    encoder_variables: ClassVar[set[int]] = set()

    def __init__(self, *args: Any):
        super().__init__(*args)
        _, self._encoder, self._head = self.model.layers
        Teaching.encoder_variables = {id(v.value) for v in self._encoder.trainable_variables}

    def __call__(self, batch: Batch, training: bool) -> Any:
        if not training:
            return self._evaluate(*batch)
        (images, targets), (weak, strong, positions) = batch
        count = ops.shape(images)[0]
        encodings = self._encoder(ops.concatenate([images, strong]), training=True)
        outputs = self._head(encodings, training=True)
        pseudo_labels, weights = self._label(weak, positions)
        smoothing = self.amounts.get("smoothing", 0)
        pseudo_labels = (1 - smoothing) * pseudo_labels + smoothing / len(self._prior)
        loss = ops.mean(self._loss(targets, outputs[:count]))
        cross_entropy = keras.losses.categorical_crossentropy(pseudo_labels, outputs[count:])
        loss += self._how.weight * ops.mean(weights * cross_entropy)
        if amount := self.amounts.get("mutual_information"):  # of IIC and IMSAT: H(mean) - mean H
            probabilities = ops.clip(outputs[count:], 1e-7, 1.0)
            loss -= amount * (_entropy(ops.mean(probabilities, 0)) - _entropy(probabilities))
        if amount := self.amounts.get("reconstruction"):
            drawn = self.decoder(encodings[count:], training=False)
            loss += amount * ops.mean(keras.losses.binary_crossentropy(weak, drawn))
        self._count(loss, targets, outputs[:count])
        return loss


def _entropy(probabilities: Any) -> Any:
    return -ops.mean(ops.sum(probabilities * ops.log(probabilities), axis=-1))


@contextmanager
def applied(name: str, autoencoder: keras.Model) -> Iterator[None]:
    """Trains with the amounts of a name; without any if it is not one of `AMOUNTS`."""
    if name not in AMOUNTS:
        yield
        return
    Teaching.amounts, Teaching.decoder = AMOUNTS[name], autoencoder.get_layer("decoder")
    factor = AMOUNTS[name].get("encoder_rate", 1)
    plain, update = unlabelled.Teaching, keras.optimizers.Adam.update_step

    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        is_in_encoder = id(variable) in Teaching.encoder_variables
        update(self, gradient, variable, learning_rate * (factor if is_in_encoder else 1))

    unlabelled.Teaching, keras.optimizers.Adam.update_step = Teaching, update_step
    try:
        yield
    finally:
        unlabelled.Teaching, keras.optimizers.Adam.update_step = plain, update

"""What training recorded: one row an epoch, with the hyperparameters that produced it."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from cae.errors import UserError

DENSE_ONLY = "dense_only"
FULL = "full"


@dataclass
class History:
    """The record of one training, readable without Keras.

    Attributes:
        name: What the experiment is called in figures and menus.
        kind: Which program trained it.
        model_info: The complete hyperparameters, as in the JSON file with every default filled in.
        epochs: One dict an epoch, in order: `epoch` (from 1), `phase` (`DENSE_ONLY` or `FULL`),
            `learning_rate`, `seconds`, and the losses and metrics; those on validation data
            begin with `val_`. Losses are means per pixel or per image, metrics lie in [0, 1].
        best_epoch: The epoch whose weights were kept, counted from 1.
        metrics: Final values, as written to `metrics.json`.
    """

    name: str
    kind: Literal["autoencoder", "classifier"]
    model_info: dict[str, Any]
    epochs: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)

    def column(self, key: str) -> list[float]:
        """One value an epoch; NaN where an epoch has none."""
        return [row.get(key, float("nan")) for row in self.epochs]

    def has(self, key: str) -> bool:
        """Whether any epoch recorded `key` (there is no `val_loss` without validation data)."""
        return any(key in row for row in self.epochs)

    @property
    def dense_only_epochs(self) -> int:
        """How many epochs ran with the encoder frozen; the phase boundary lies after them."""
        return sum(row.get("phase") == DENSE_ONLY for row in self.epochs)

    @property
    def best(self) -> dict[str, Any]:
        """The row of the epoch whose weights were kept; empty before the first epoch."""
        return self.epochs[self.best_epoch - 1] if self.best_epoch else {}

    @property
    def divergence(self) -> UserError | None:
        """What to say when a loss was not finite; None while all are."""
        for row in self.epochs:
            losses = [row[key] for key in ("loss", "val_loss") if key in row]
            wrong = [loss for loss in losses if not math.isfinite(loss)]
            if wrong:
                kept = f"The weights of epoch {self.best_epoch} are kept. " * bool(self.best_epoch)
                return UserError(
                    self.name,
                    "the loss must stay finite",
                    f"{wrong[0]} in epoch {row['epoch']}",
                    f"{kept}Use a learning rate ten times smaller, or batchNorm after the layers.",
                )
        return None

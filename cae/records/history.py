"""The record of a training: its hyperparameters and one row per epoch."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from cae.errors import UserError

DENSE_ONLY = "dense_only"
FULL = "full"
# Called with the row of every whole epoch, and of one that diverged. What it raises ends the
# training, which can then be resumed.
OnEpoch = Callable[[dict[str, Any]], None]


@dataclass
class History:
    """The record of one training.

    A row of `epochs` holds `epoch` (from 1), `phase` (`DENSE_ONLY` or `FULL`), `learning_rate`,
    `seconds`, and the losses and metrics, which begin with `val_` if they are of the validation
    images. Losses are means per pixel or per image; metrics lie in [0, 1].
    """

    name: str  # in figures and menus
    kind: Literal["autoencoder", "classifier"]
    model_info: dict[str, Any]  # the complete hyperparameters
    epochs: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None  # from 1: whose weights were kept; None before the first
    metrics: dict[str, Any] = field(default_factory=dict)  # the content of metrics.json

    def column(self, key: str) -> list[float]:
        """The values of `key`, one per epoch; NaN where an epoch has none."""
        return [row.get(key, float("nan")) for row in self.epochs]

    def has(self, key: str) -> bool:
        """Whether any epoch has `key`; there is no `val_loss` without validation images."""
        return any(key in row for row in self.epochs)

    @property
    def dense_only_epochs(self) -> int:
        """The number of epochs with a frozen encoder, which come first."""
        return sum(row.get("phase") == DENSE_ONLY for row in self.epochs)

    @property
    def best(self) -> dict[str, Any]:
        """The row of the best epoch; empty before the first epoch."""
        return self.epochs[self.best_epoch - 1] if self.best_epoch else {}

    @property
    def divergence(self) -> UserError | None:
        """An error that names the first value that is not finite; None if all are."""
        for row in self.epochs:
            for key, value in row.items():
                if isinstance(value, float) and not math.isfinite(value):
                    kept = f"The weights of epoch {self.best_epoch} are kept. "
                    return UserError(
                        self.name,
                        "the loss must stay finite",
                        f"{key} {value} in epoch {row['epoch']}",
                        f"{kept * bool(self.best_epoch)}Use a learning rate ten times smaller, or "
                        "batchNorm after the layers.",
                    )
        return None

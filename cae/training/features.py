"""Encodings of a frozen encoder, computed once for all trainings that follow each other on it."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

# The encodings kept, by the hash of what they depend on; None where nothing is shared.
_shared: ContextVar[dict[str, np.ndarray] | None] = ContextVar("shared", default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """Keeps the last encodings inside, for the next training that asks for the same.

    One set at a time, because they take up to gigabytes; none is kept afterwards.
    """
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


def get_features(
    compute: Callable[[], np.ndarray], depends_on: Iterable[np.ndarray | str]
) -> np.ndarray:
    """The encodings that `compute` returns, or those kept since it was called before.

    Args:
        compute: Encodes the images.
        depends_on: Everything that decides the result: weights, layers, images, their scaling.
    """
    shared = _shared.get()
    if shared is None:
        return compute()
    key = _hash(depends_on)
    if key not in shared:
        shared.clear()  # before the next ones need memory
        shared[key] = compute()
    return shared[key]


def _hash(parts: Iterable[np.ndarray | str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype} {part.shape}".encode())
            digest.update(np.ascontiguousarray(part))
        else:
            digest.update(part.encode())
    return digest.hexdigest()

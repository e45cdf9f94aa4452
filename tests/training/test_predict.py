"""Encodings are computed once for trainings that follow each other on the same encoder."""

import numpy as np
import pytest

from cae.training.predict import get_encodings, sharing_encodings

IMAGES = np.arange(4)


class Encoder:
    """Counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return IMAGES * 2


@pytest.mark.parametrize("other", [[IMAGES, "255"], [IMAGES + 1, "1"], [IMAGES.reshape(2, 2), "1"]])
def test_the_last_encodings_are_kept(other):
    """One set at a time: what another training needs takes its place."""
    encode = Encoder()
    with sharing_encodings():
        first = get_encodings(encode, [IMAGES, "1"])
        assert get_encodings(encode, [IMAGES.copy(), "1"]) is first
        assert encode.calls == 1
        get_encodings(encode, other)
        assert encode.calls == 2
        assert get_encodings(encode, [IMAGES, "1"]) is not first


def test_nothing_is_kept_outside():
    """A single training gives its memory back."""
    encode = Encoder()
    with sharing_encodings():
        get_encodings(encode, [IMAGES])
    for _ in range(2):
        get_encodings(encode, [IMAGES])
    assert encode.calls == 3

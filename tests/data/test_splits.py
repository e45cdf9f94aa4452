"""Subsets are balanced, nested, and the same at every start."""

import json

import numpy as np
import pytest

from cae.data.splits import draw_order, keep_order
from cae.errors import DataError

LABELS = np.array([7, 7, 2, 2, 2, 7, 5, 5, 2, 5, 7, 2])  # five of 2, three of 5, four of 7


@pytest.mark.parametrize("per_class", [1, 2, 3])
def test_the_first_ones_are_as_many_of_each_class(per_class):
    chosen = LABELS[draw_order(LABELS, 0)[: 3 * per_class]]
    assert np.unique(chosen, return_counts=True)[1].tolist() == [per_class] * 3


def test_every_image_comes_once():
    assert sorted(draw_order(LABELS, 3)) == list(range(12))


def test_classes_that_run_out_are_left_out():
    """The fourth turn has no 5 left, the fifth only a 2."""
    assert LABELS[draw_order(LABELS, 0)[9:]].tolist() == [2, 7, 2]


def test_the_seed_decides():
    assert draw_order(LABELS, 1).tolist() == draw_order(LABELS, 1).tolist()
    assert draw_order(LABELS, 1).tolist() != draw_order(LABELS, 2).tolist()


def test_a_second_start_reads_the_first_ones_file(tmp_path):
    path = tmp_path / "order.json"
    order = keep_order(path, LABELS, 0, "abc")
    stored = path.read_bytes()
    assert (keep_order(path, LABELS, 0, "abc") == order).all()
    assert path.read_bytes() == stored
    assert json.loads(stored)["data_sha256"] == "abc"


def swap_two(document):
    order = document["order"]
    order[0], order[1] = order[1], order[0]


@pytest.mark.parametrize(
    "damage",
    [
        swap_two,
        lambda document: document["order"].pop(),
        lambda document: document.pop("order"),
        lambda document: document.update(order="twelve"),
        lambda document: document.update(order=[2**70]),
        lambda document: document.update(seed=1),
        lambda document: document.update(data_sha256="other data"),
    ],
)
def test_a_changed_file_is_refused(tmp_path, damage):
    path = tmp_path / "order.json"
    keep_order(path, LABELS, 0, "abc")
    document = json.loads(path.read_text())
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="must hold the order drawn"):
        keep_order(path, LABELS, 0, "abc")


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"\xff\xfe"])
def test_something_else_is_refused(tmp_path, content):
    path = tmp_path / "order.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match="must hold the order"):
        keep_order(path, LABELS, 0, "abc")

"""Labels in the forms that converters give them are read; anything else is named."""

import gzip

import numpy as np
import pytest

from cae.data.idx import read_labels
from cae.data.labels import NO_LABEL, as_labels
from cae.errors import DataError

ONE_HOT = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
QMNIST = np.array([[5, 4, 170, 3, 24, 48, 0, 0], [0, 4, 171, 2, 20, 84, 0, 0]], np.int32)


@pytest.mark.parametrize(
    ("values", "expected", "said"),
    [
        (ONE_HOT.astype(np.uint8), [2, 0, 1], "one-hot"),
        (ONE_HOT.astype(np.float32), [2, 0, 1], "one-hot"),
        (np.array([[0.9, 0.05, 0.05], [0.1, 0.3, 0.6]]), [0, 2], "one-hot"),
        (np.eye(8, dtype=np.int32)[::-1], [7, 6, 5, 4, 3, 2, 1, 0], "one-hot"),
        (QMNIST, [5, 0], "QMNIST"),
        (np.array([[3], [26]], np.uint8), [3, 26], "one column"),
        (np.array([0, 9, 3], np.float32), [0, 9, 3], "float32"),
        (np.array([[1], [2.0]]), [1, 2], "float64"),
    ],
)
def test_other_forms_are_read_with_a_line(values, expected, said, capsys):
    labels = as_labels("y", values)
    assert labels.dtype == np.int64
    assert labels.tolist() == expected
    output = capsys.readouterr()
    assert output.out == ""
    assert said in output.err and "y: " in output.err


@pytest.mark.parametrize(
    ("values", "expected", "said"),
    [
        ([2, -1, 0, -1], [2, NO_LABEL, 0, NO_LABEL], "2 of 4 images have no label"),
        ([-1, 1, -1], [-1, 1, -1], "-1 is treated as a class"),
        ([-1, 0], [-1, 0], "-1 is treated as a class"),
        ([-1, -1], [-1, -1], ""),
        ([-2, -1, 0, 1], [-2, -1, 0, 1], ""),
    ],
)
def test_minus_one_marks_no_label_beside_two_classes(values, expected, said, capsys):
    """Two classes may be called -1 and 1, and other negative labels show that -1 is one as well."""
    name = f"labels of {values}"  # a line is said once for each name
    assert as_labels(name, np.array(values, np.int8)).tolist() == expected
    error = capsys.readouterr().err
    assert said in error and bool(said) == bool(error)


@pytest.mark.parametrize(
    ("values", "got"),
    [
        (np.array([0, 1.5, 2]), "1.5 .*float64.* image 1"),
        (np.array([0, np.nan, 2], np.float32), "nan .*float32.* image 1"),
        (np.array([1e300]), r"1e\+300 .* image 0"),
        (np.full((3, 784), 7, np.uint8), "flattened images .*3 x 784 uint8"),
        (np.array([[1, 1, 0], [0, 0, 1]]), "flattened images .*2 x 3"),
        (np.array([[-1.0, 2.0]]), "flattened images"),
        (np.array([7, 0, 3], np.int32).byteswap(), "little-endian"),
        (np.array([7, 0, 3], np.int16).byteswap(), "little-endian"),
        (np.array([7, 0, 3], np.float32).byteswap(), "little-endian"),
    ],
)
def test_anything_else_is_named(values, got):
    with pytest.raises(DataError, match=f"^y: must contain .*, got .*{got}"):
        as_labels("y", values)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_qmnists_file(tmp_path, pack):
    """qmnist-train-labels-idx2-int.gz: code 0x0C, rank 2, eight columns."""
    content = bytes.fromhex("00000c02 00000002 00000008") + QMNIST.astype(">i4").tobytes()
    (tmp_path / "labels").write_bytes(pack(content))
    assert read_labels(tmp_path / "labels").tolist() == [5, 0]

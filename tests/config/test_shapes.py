"""Sizes along the layers, and the one line for a decoder that misses them."""

import math
import re

import hypothesis.strategies as st
import pytest
from conftest import AUTOENCODER, CLASSIFIER
from hypothesis import given, settings

from cae.config.load import validate_config
from cae.config.shapes import check_shapes, get_largest_factors, get_rounding
from cae.errors import ConfigurationError


def scaling(pools, upsamples):
    """An autoencoder of nothing but pools and upSample layers; 2 stands for [2, 2]."""

    def layers(kind, factors):
        return [[kind, [f, f] if isinstance(f, int) else f] for f in factors]

    changes = {
        "encoder_layers": [*layers("pool", pools), ["batchNorm"]],
        "decoder_layers": layers("upSample", upsamples),
    }
    return validate_config(AUTOENCODER | changes, "my.json", "autoencoder")


def classifier(encoder):
    return validate_config(CLASSIFIER | {"encoder_layers": encoder}, "my.json", "classifier")


def shape_problem(config, input_shape=(28, 28, 1)):
    with pytest.raises(ConfigurationError) as caught:
        check_shapes(config, input_shape, "my.json")
    (line,) = caught.value.lines
    return line.replace("\N{MULTIPLICATION SIGN}", "x").removeprefix("my.json: ")


@pytest.mark.parametrize("input_shape", [(28, 28, 1), (8, 12, 3), (4, 4, 1)])
@pytest.mark.parametrize("upsamples", [[2, 2], [4]])
def test_sizes_that_divide_need_no_rounding(input_shape, upsamples):
    config = scaling([2, 2], upsamples)
    check_shapes(config, input_shape, "my.json")
    assert get_rounding(config, input_shape) == ((), input_shape[:2], ((0, 0), (0, 0)))


@pytest.mark.parametrize(
    ("pools", "input_shape", "rounded", "size", "cropping"),
    [
        # 50 → 25 → 13 → 26 → 52: the second pool alone rounds up, by one pixel of 2×2.
        ([2, 2], (50, 50, 1), (1,), (52, 52), ((0, 2), (0, 2))),
        # 27 → 14 → 7 → 14 → 28, and 25 → 13 → 7 → 14 → 28
        ([2, 2], (27, 25, 1), (0, 1), (28, 28), ((0, 1), (0, 3))),
        # 45 → 23 → 12 → 24 → 48, and 60 → 30 → 15 → 30 → 60
        ([2, 2], (45, 60, 1), (0, 1), (48, 60), ((0, 3), (0, 0))),
        # 28 → 14 → 7 → 4 → 8 → 16 → 32
        ([2, 2, 2], (28, 28, 1), (2,), (32, 32), ((0, 4), (0, 4))),
        # 7 lacks 2 of 9: one row before it and one after it.
        ([3], (7, 9, 1), (0,), (9, 9), ((1, 1), (0, 0))),
        # 14 → 7 → 3·3 lacks 2 rows of 2 pixels.
        ([2, 3], (14, 6, 1), (1,), (18, 6), ((2, 2), (0, 0))),
        # A row of pixels.
        ([[1, 2], [1, 2]], (1, 10, 1), (1,), (1, 12), ((0, 0), (0, 2))),
    ],
)
def test_pools_round_up_and_the_decoder_crops(pools, input_shape, rounded, size, cropping):
    config = scaling(pools, pools[::-1])
    check_shapes(config, input_shape, "my.json")
    assert get_rounding(config, input_shape) == (rounded, size, cropping)


STRIDED = ["conv", 4, [3, 3], [2, 2]]
WIDER = ["convTranspose", 4, [3, 3], [2, 2]]


@pytest.mark.parametrize(
    ("encoder", "decoder", "side", "rounded", "crop"),
    [
        ([STRIDED, STRIDED], [WIDER, WIDER], 28, (), 0),
        ([STRIDED, ["pool", [2, 2]]], [["upSample", [4, 4]]], 28, (), 0),
        # 27 → 14 → 7 → 14 → 28, and 50 → 25 → 13 → 26 → 52 with either kind
        ([STRIDED, STRIDED], [WIDER, WIDER], 27, (0,), 1),
        ([["pool", [2, 2]], STRIDED], [["upSample", [2, 2]], WIDER], 50, (1,), 2),
    ],
)
def test_strides_count_as_pools(encoder, decoder, side, rounded, crop):
    layers = {"encoder_layers": encoder, "decoder_layers": decoder}
    config = validate_config(AUTOENCODER | layers, "my.json", "autoencoder")
    check_shapes(config, (side, side, 1), "my.json")
    found = get_rounding(config, (side, side, 1))
    assert found == (rounded, (side + crop,) * 2, ((0, crop), (0, crop)))
    short = validate_config(AUTOENCODER | layers | {"decoder_layers": []}, "my.json", "autoencoder")
    assert 'Append ["upSample", [4, 4]]' in shape_problem(short, (side, side, 1))


def test_layers_that_restore_the_size_without_rounding_stay_as_they_are():
    """8 → 2 → 8: the pool drops two rows, and the upSample layer makes up for them."""
    config = scaling([3], [4])
    check_shapes(config, (8, 8, 1), "my.json")
    assert get_rounding(config, (8, 8, 1)) == ((), (8, 8), ((0, 0), (0, 0)))


@pytest.mark.parametrize(
    ("pools", "upsamples", "side", "got", "remedy"),
    [
        ([2, 2], [2], 28, "14x14 (28x28 → 14x14 → 7x7 → 14x14)", 'Append ["upSample", [2, 2]]'),
        ([2, 2], [2], 29, "16x16 (29x29 → 15x15 → 8x8 → 16x16)", 'Append ["upSample", [2, 2]]'),
        ([[1, 4]], [[1, 2]], 8, "8x4 (8x8 → 8x2 → 8x4)", 'Append ["upSample", [1, 2]]'),
        ([2], [2, 2], 28, "56x56 (28x28 → 14x14 → 28x28 → 56x56)", "multiply to 2x2."),
        ([[1, 2]], [[2, 1]], 8, "16x4 (8x8 → 8x4 → 16x4)", "multiply to 1x2."),
    ],
)
def test_a_decoder_that_misses_the_size(pools, upsamples, side, got, remedy):
    line = shape_problem(scaling(pools, upsamples), (side, side, 1))
    required = f"decoder_layers: must give back images of {side}x{side}, got "
    assert line.startswith(f"{required}{got}") and remedy in line


HEAD_LAYERS = [["conv", 4, [3, 3]], ["pool", [2, 2]], ["pool", [1, 5]]]


@pytest.mark.parametrize(
    ("config", "shape", "line"),
    [
        (scaling([2] * 6, [2] * 6), (28, 28, 1), "encoder_layers[5]: a pool of at most 1x1, got "
         "2x2 (28x28 → 14x14 → 7x7 → 4x4 → 2x2 → 1x1). Use only 5 pools "),
        (scaling([2, 2], [2, 2]), (1, 10, 1), "encoder_layers[0]: a pool of at most 1x10, got 2x2"),
        (classifier(HEAD_LAYERS), (9, 9, 1), "encoder_layers[2]: a pool of at most 4x4, got 1x5"),
        (classifier([["pool", [2, 2]], ["conv", 4, [3, 3], [1, 3]]]), (4, 4, 1),
         "encoder_layers[1]: a stride of at most 2x2, got 1x3"),
    ],
)  # fmt: skip
def test_a_layer_larger_than_what_it_gets(config, shape, line):
    found = shape_problem(config, shape)
    assert found.replace("must have ", "").replace(", its input", "").startswith(line)


def test_pools_of_a_classifier_that_fit():
    check_shapes(classifier(HEAD_LAYERS), (9, 11, 1), "my.json")
    for encoder in (None, "model.keras"):
        check_shapes(classifier(encoder), (1, 1, 1), "my.json")


def test_the_largest_factors_of_a_decoder():
    """28 → 10 → 5 → 30 with pools that round up, 28 → 9 → 4 → 28 where they round down."""
    assert get_largest_factors([["pool", [3, 3]], ["pool", [2, 2]]], (28, 28)) == (7, 7)
    strided = [["conv", 8, [3, 3], [2, 1]], ["conv", 8, [3, 3]], ["dense", 4]]
    assert get_largest_factors(strided, (9, 9)) == (2, 1)


factor_lists = st.lists(st.integers(1, 4), max_size=4)


@settings(max_examples=50)
@given(factor_lists.filter(bool), factor_lists, st.integers(1, 32))
def test_it_fits_or_the_proposed_layer_makes_it_fit(pools, upsamples, side):
    config, input_shape = scaling(pools, upsamples), (side, side, 1)
    try:
        check_shapes(config, input_shape, "my.json")
    except ConfigurationError as error:
        if proposed := re.search(r"Append \[\"upSample\", \[(\d+), \d+\]\]", str(error)):
            upsamples = [*upsamples, int(proposed[1])]
            check_shapes(scaling(pools, upsamples), input_shape, "my.json")
    else:
        layers = [["conv", 1, [3, 3]], *(["pool", [factor, factor]] for factor in pools)]
        assert get_largest_factors(layers, (side, side))[0] >= math.prod(upsamples)
        _, drawn, cropping = get_rounding(config, input_shape)
        for size, (first, last) in zip(drawn, cropping, strict=True):
            assert min(first, last) >= 0 and size - first - last == side

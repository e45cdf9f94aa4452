"""Sizes along the layers, and the one line for a decoder that misses them."""

import json
import re

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from cae.config.load import dump_config, parse_config
from cae.config.shapes import check_shapes, get_rounding, trace_shapes
from cae.errors import ConfigurationError

AUTOENCODER = {
    "encoder_layers": [["conv", 32, [3, 3]], ["pool", [2, 2]]],
    "decoder_layers": [["upSample", [2, 2]], ["conv", 32, [3, 3]]],
    "optimizer": ["adam", 0.001],
    "batch_size": 32,
    "epochs": 10,
}
CLASSIFIER = {
    "dense_layers": [["dense", 64]],
    "optimizer": ["adam", 0.001],
    "dense_only_train_epochs": 5,
    "full_train_epochs": 10,
    "batch_size": 64,
}
# A busy machine stalls for seconds, which says nothing about the code.
lenient = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])


def parse(document, kind="autoencoder"):
    return parse_config(json.dumps(document), "my.json", kind)


def autoencoder(**changes):
    return parse(AUTOENCODER | changes)


def scaling(pools, upsamples):
    """An autoencoder of nothing but pools and upSample layers; 2 stands for [2, 2]."""

    def layers(kind, factors):
        return [[kind, [f, f] if isinstance(f, int) else f] for f in factors]

    return autoencoder(
        encoder_layers=layers("pool", pools), decoder_layers=layers("upSample", upsamples)
    )


def shape_problem(config, input_shape=(28, 28, 1)):
    with pytest.raises(ConfigurationError) as caught:
        check_shapes(config, input_shape, "my.json")
    (line,) = caught.value.lines
    return line.replace("\N{MULTIPLICATION SIGN}", "x").removeprefix("my.json: ")


def trace_sizes(config, input_shape):
    return [shape[:2] for _, shape in trace_shapes(config, input_shape)]


def test_trace_follows_every_layer():
    config = autoencoder(
        encoder_layers=[["conv", 4, [3, 3]], ["batchNorm"], ["pool", [2, 3]], ["drop", 0.1]],
        decoder_layers=[["upSample", [2, 3]], ["conv", 8, [5, 5]]],
    )
    assert trace_shapes(config, (9, 7, 3)) == [
        ("input", (9, 7, 3)),
        ("encoder_layers[0]", (9, 7, 4)),
        ("encoder_layers[1]", (9, 7, 4)),
        ("encoder_layers[2]", (5, 3, 4)),
        ("encoder_layers[3]", (5, 3, 4)),
        ("decoder_layers[0]", (10, 9, 4)),
        ("decoder_layers[1]", (10, 9, 8)),
    ]


@pytest.mark.parametrize("encoder", [None, "model.keras"])
def test_trace_of_a_classifier_without_layers_is_the_input(encoder):
    config = parse(CLASSIFIER | {"encoder_layers": encoder}, "classifier")
    assert trace_shapes(config, (8, 8, 1)) == [("input", (8, 8, 1))]
    check_shapes(config, (1, 1, 1), "my.json")


@pytest.mark.parametrize("input_shape", [(28, 28, 1), (8, 8, 3), (16, 20, 1), (4, 4, 1)])
def test_a_decoder_that_undoes_its_encoder_fits(input_shape):
    check_shapes(scaling([2, 2], [2, 2]), input_shape, "my.json")
    check_shapes(scaling([2, 2], [4]), input_shape, "my.json")
    check_shapes(autoencoder(encoder_layers=[["batchNorm"]], decoder_layers=[]), input_shape, "x")


@pytest.mark.parametrize("input_shape", [(28, 28, 1), (8, 12, 3), (4, 4, 1)])
def test_sizes_that_divide_need_no_rounding(input_shape):
    nothing = (), input_shape[:2], ((0, 0), (0, 0))
    assert get_rounding(scaling([2, 2], [2, 2]), input_shape) == nothing
    assert get_rounding(scaling([2, 2], [4]), input_shape) == nothing


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
    ],
)
def test_pools_round_up_and_the_decoder_crops(pools, input_shape, rounded, size, cropping):
    config = scaling(pools, pools[::-1])
    check_shapes(config, input_shape, "my.json")
    assert get_rounding(config, input_shape) == (rounded, size, cropping)


def test_layers_that_restore_the_size_without_rounding_stay_as_they_are():
    """8 → 2 → 8: the pool drops two rows, and the upSample layer makes up for them."""
    config = scaling([3], [4])
    check_shapes(config, (8, 8, 1), "my.json")
    assert get_rounding(config, (8, 8, 1)).pools == ()
    assert trace_sizes(config, (8, 8, 1)) == [(8, 8), (2, 2), (8, 8)]


def test_a_row_of_pixels():
    """Pools along the row fit; one across it is larger than the image."""
    config = scaling([[1, 2], [1, 2]], [[1, 2], [1, 2]])
    check_shapes(config, (1, 10, 1), "my.json")
    assert get_rounding(config, (1, 10, 1)).cropping == ((0, 0), (0, 2))
    line = shape_problem(scaling([2, 2], [2, 2]), (1, 10, 1))
    assert line.startswith("encoder_layers[0]: must be a pool of at most 1x10, its input, got 2x2")


def test_the_upsample_that_overshoots_is_named():
    line = shape_problem(scaling([2, 2], [2, 2, 2]))
    assert line.startswith("decoder_layers[2]: the decoder must give back 28x28, got 56x56: ")
    assert line.endswith("Remove decoder_layers[2].")


def test_the_end_of_the_decoder_is_named_when_a_layer_is_missing():
    line = shape_problem(scaling([2, 2], [2]))
    assert line.startswith("decoder_layers: the decoder must give back 28x28, got 14x14: ")
    assert line.endswith('Append ["upSample", [2, 2]] to decoder_layers.')


def test_a_layer_of_the_wrong_size_is_changed():
    line = shape_problem(scaling([[1, 2]], [[2, 1]]))
    assert line.endswith('Change decoder_layers[0] to ["upSample", [1, 2]].')


def test_odd_images_do_not_change_the_remedy():
    line = shape_problem(scaling([2, 2], [2]), (29, 29, 1))
    assert "got 16x16" in line
    assert line.endswith('Append ["upSample", [2, 2]] to decoder_layers.')


def test_a_pool_larger_than_what_it_gets():
    line = shape_problem(scaling([2] * 6, [2] * 6))
    assert line.startswith(
        "encoder_layers[5]: must be a pool of at most 1x1, its input, got 2x2 "
        "(28x28 → 14x14 → 7x7 → 4x4 → 2x2 → 1x1). Use only 5 pools "
    )


def test_pools_of_a_classifier_are_checked():
    layers = [["conv", 4, [3, 3]], ["pool", [2, 2]], ["pool", [1, 5]]]
    config = parse(CLASSIFIER | {"encoder_layers": layers}, "classifier")
    check_shapes(config, (9, 11, 1), "my.json")
    line = shape_problem(config, (9, 9, 1))
    assert line.startswith("encoder_layers[2]: must be a pool of at most 4x4, its input, got 1x5")


factor_lists = st.lists(st.integers(1, 4), max_size=4)


def apply_remedy(remedy, config):
    """Does to a configuration what the last sentence of an error says."""
    document = json.loads(dump_config(config))
    change, _, new = remedy.rstrip(".").partition(" to ")
    if change.startswith("Append "):
        document[new].append(json.loads(change.removeprefix("Append ")))
    for key, index in sorted(re.findall(r"(\w+)\[(\d+)\]", change), reverse=True):
        if change.startswith("Remove "):
            del document[key][int(index)]
        elif change.startswith("Change "):
            document[key][int(index)] = json.loads(new)
    return parse(document)


@lenient
@given(factor_lists.filter(bool), factor_lists, st.integers(1, 32))
def test_it_fits_or_the_proposed_change_makes_it_fit(pools, upsamples, side):
    config, input_shape = scaling(pools, upsamples), (side, side, 1)
    try:
        check_shapes(config, input_shape, "my.json")
    except ConfigurationError:
        remedy = shape_problem(config, input_shape).rpartition("). ")[2]
        if not remedy.startswith("Use "):
            check_shapes(apply_remedy(remedy, config), input_shape, "my.json")
    else:
        _, drawn, cropping = get_rounding(config, input_shape)
        assert drawn == trace_sizes(config, input_shape)[-1]
        for size, (first, last) in zip(drawn, cropping, strict=True):
            assert min(first, last) >= 0 and size - first - last == side

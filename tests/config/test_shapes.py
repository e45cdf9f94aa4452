"""Sizes along the layers, and the one line for a decoder that misses them."""

import json
import re

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from cae.config.load import dump_config, parse_config
from cae.config.shapes import check_shapes, trace_shapes
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


def test_trace_follows_every_layer():
    config = autoencoder(
        encoder_layers=[["conv", 4, [3, 3]], ["batchNorm"], ["pool", [2, 3]], ["drop", 0.1]],
        decoder_layers=[["upSample", [2, 3]], ["conv", 8, [5, 5]]],
    )
    assert trace_shapes(config, (9, 7, 3)) == [
        ("input", (9, 7, 3)),
        ("encoder_layers[0]", (9, 7, 4)),
        ("encoder_layers[1]", (9, 7, 4)),
        ("encoder_layers[2]", (4, 2, 4)),
        ("encoder_layers[3]", (4, 2, 4)),
        ("decoder_layers[0]", (8, 6, 4)),
        ("decoder_layers[1]", (8, 6, 8)),
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


def test_the_pool_that_loses_a_row_is_named():
    assert shape_problem(scaling([2, 2, 2], [2, 2, 2])) == (
        "encoder_layers[2]: the decoder must give back 28x28, got 24x24: this pool drops 1 row "
        "and 1 column of 7x7 (28x28 → 14x14 → 7x7 → 3x3 → 6x6 → 12x12 → 24x24). "
        "Use only 2 pools and as many upSample layers, or images whose height is a multiple of 8 "
        "and width of 8."
    )


def test_a_pool_that_loses_only_columns():
    line = shape_problem(scaling([2, 2], [2, 2]), (16, 22, 1))
    assert line.startswith("encoder_layers[1]: the decoder must give back 16x22, got 16x20: ")
    assert "this pool drops 1 column of 8x11" in line


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


def test_odd_images():
    line = shape_problem(scaling([2, 2], [2, 2]), (29, 29, 1))
    assert "Use no pool" in line and "images whose height is a multiple of 4 and width of 4" in line


def test_a_pool_larger_than_what_it_gets():
    line = shape_problem(scaling([2] * 5, [2] * 5))
    assert line.startswith(
        "encoder_layers[4]: must be a pool of at most 1x1, its input, got 2x2 "
        "(28x28 → 14x14 → 7x7 → 3x3 → 1x1). Use only 4 pools "
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
def test_the_proposed_change_makes_it_fit(pools, upsamples, side):
    config, input_shape = scaling(pools, upsamples), (side, side, 1)
    if trace_shapes(config, input_shape)[-1][1] == input_shape:
        check_shapes(config, input_shape, "my.json")
        return
    remedy = shape_problem(config, input_shape).rpartition("). ")[2]
    if not remedy.startswith("Use "):
        check_shapes(apply_remedy(remedy, config), input_shape, "my.json")

"""Any configuration is accepted by the JSON Schema, and read back as it was written."""

import json

import hypothesis.strategies as st
import jsonschema
from configurations import autoencoder, parse
from hypothesis import given, settings

from cae.config.fields import OPTIMIZERS
from cae.config.load import dump_config, parse_config, validate_config
from cae.config.schema import CONFIGS, json_schema

rates = st.floats(0, 10, exclude_min=True)
factors = st.floats(0, 1, exclude_min=True, exclude_max=True)
sizes = st.tuples(st.integers(1, 32), st.integers(1, 32))
conv = st.tuples(st.just("conv"), st.integers(1, 4096), sizes)
pool = st.tuples(st.just("pool"), sizes)
upsample = st.tuples(st.just("upSample"), sizes)
drop = st.tuples(st.just("drop"), factors) | st.just(("batchNorm",))
dense = st.tuples(st.just("dense"), st.integers(1, 65536))
encoders = st.lists(conv | pool | drop, min_size=1, max_size=5)
shared = {
    "optimizer": st.tuples(st.sampled_from([*OPTIMIZERS]), rates)
    | st.tuples(st.sampled_from([*OPTIMIZERS.values()]), rates, rates),
    "batch_size": st.integers(1, 65536),
}
optional = {
    "early_stopping": st.none() | st.integers(1, 100),
    "augmentation": st.none() | st.fixed_dictionaries({}, optional={"rotation": st.floats(0, 180)}),
    "learning_rate_schedule": st.none()
    | st.just(("cosine",))
    | st.tuples(st.just("step"), st.integers(1, 100), factors),
    "l2": st.floats(0, 1),
    "mixed_precision": st.booleans(),
}
autoencoders = {
    "encoder_layers": encoders,
    "decoder_layers": st.lists(conv | pool | upsample | drop, max_size=5),
    "epochs": st.integers(1, 100),
}
classifiers = {
    "dense_layers": st.lists(dense | drop, max_size=5),
    "encoder_layers": st.none() | st.text(min_size=1) | encoders,
    "dense_only_train_epochs": st.integers(0, 100),
    "full_train_epochs": st.integers(1, 100),
}
documents = st.one_of(
    st.tuples(st.just(kind), st.fixed_dictionaries(shared | keys, optional=optional))
    for kind, keys in (("autoencoder", autoencoders), ("classifier", classifiers))
)


@settings(max_examples=50)
@given(documents)
def test_what_is_written_is_read_back_the_same(document):
    kind, values = document
    config = parse(values, kind)
    text = dump_config(config)
    assert parse_config(text, "my.json", kind) == config
    assert dump_config(parse_config(text, "my.json", kind)) == text
    assert json.loads(text) == config.model_dump(mode="json")
    assert validate_config(config.model_dump(), "model_info", kind) == config


@settings(max_examples=50)
@given(documents)
def test_the_json_schema_accepts_what_the_models_accept(document):
    _, values = document
    jsonschema.validate(json.loads(json.dumps(values)), json_schema())


def test_dump_has_a_line_a_layer_and_every_key():
    text = dump_config(autoencoder(augmentation={"zoom": 0.1}))
    assert text.splitlines()[:4] == [
        *("{", '  "encoder_layers": [', '    ["conv", 32, [3, 3]],', '    ["pool", [2, 2]]')
    ]
    assert '\n  "augmentation": {"rotation": 0.0, ' in text and '"zoom": 0.1, ' in text
    assert json.loads(text).keys() == CONFIGS["autoencoder"].model_fields.keys()

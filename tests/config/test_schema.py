"""What a configuration may say, and the one line that each wrong one gets."""

import json
import re

import hypothesis.strategies as st
import jsonschema
import pytest
from hypothesis import given, settings

from cae.config.fields import OPTIMIZERS
from cae.config.json_text import MAX_FILE_BYTES
from cae.config.load import dump_config, load_config, override, parse_config, validate_config
from cae.config.schema import CONFIGS, PHASE_KEYS, json_schema
from cae.errors import ConfigurationError

AUTOENCODER = {
    "encoder_layers": [["conv", 32, [3, 3]], ["pool", [2, 2]]],
    "decoder_layers": [["upSample", [2, 2]], ["conv", 32, [3, 3]]],
    "optimizer": ["adam", 0.001],
    "batch_size": 32,
    "epochs": 10,
    "activation_function": "Sigmoid",
}
CLASSIFIER = {
    "dense_layers": [["dense", 64]],
    "optimizer": ["adam", 0.001, 0.0005],
    "dense_only_train_epochs": 5,
    "full_train_epochs": 10,
    "batch_size": 64,
}
# A busy machine stalls for seconds, which says nothing about the code.
fewer = settings(max_examples=50)
DOCUMENTS = {"autoencoder": AUTOENCODER, "classifier": CLASSIFIER}


def parse(document, kind="autoencoder"):
    return parse_config(json.dumps(document), "my.json", kind)


def autoencoder(**changes):
    return parse(AUTOENCODER | changes)


def lines(document, kind="autoencoder"):
    """The error lines of a document, or of JSON text."""
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(ConfigurationError) as caught:
        parse_config(text, "my.json", kind)
    return caught.value.lines


# --- What is accepted ---


def test_defaults_are_filled_in():
    config = autoencoder()
    assert config.encoder_layers == (("conv", 32, (3, 3)), ("pool", (2, 2)))
    assert (config.loss, config.validation_split, config.seed) == ("binary_crossentropy", 0.1, 0)
    assert (config.early_stopping, config.noise, config.l2) == (None, 0.0, 0.0)
    assert parse(CLASSIFIER, "classifier").encoder_layers is None
    document = {key: value for key, value in AUTOENCODER.items() if key != "activation_function"}
    assert parse(document) == config


def test_layers_and_optimizer_have_named_parts():
    config = autoencoder()
    assert config.encoder_layers[0].kernel_size == (3, 3)
    assert config.optimizer.learning_rate == 0.001
    assert config.optimizer.full_learning_rate is None
    assert parse(CLASSIFIER, "classifier").optimizer.full_learning_rate == 0.0005


@pytest.mark.parametrize(
    ("changes", "key", "value"),
    [
        ({"activation_function": "sIGMOID"}, "activation_function", "Sigmoid"),
        ({"optimizer": ["RMSProp", 1]}, "optimizer", ("rmsprop", 1.0, None)),
        ({"activation_function": "Linear", "loss": None}, "loss", "mean_squared_error"),
        ({"activation_function": "Relu"}, "loss", "mean_squared_error"),
        ({"decoder_layers": [["pool", [2, 2]]]}, "decoder_layers", (("upSample", (2, 2)),)),
    ],
)
def test_what_a_value_means(changes, key, value):
    assert getattr(autoencoder(**changes), key) == value


def test_wrapping_and_schema_key_make_no_difference():
    schema = {"$schema": "schema.json"}
    assert parse(schema | AUTOENCODER) == parse({"model_info": AUTOENCODER}) == autoencoder()
    assert parse(schema | {"model_info": {"$schema": 3, **AUTOENCODER}}) == autoencoder()
    tuples = AUTOENCODER | {"encoder_layers": (("conv", 32, (3, 3)), ("pool", (2, 2)))}
    assert validate_config({"model_info": tuples}, "model_info", "autoencoder") == autoencoder()


@pytest.mark.parametrize("encoder", ["models/small.keras", [["conv", 8, [3, 3]]], None])
def test_encoder_of_a_classifier_is_a_path_layers_or_null(encoder):
    config = parse(CLASSIFIER | {"encoder_layers": encoder}, "classifier")
    assert config.model_dump(mode="json")["encoder_layers"] == encoder


# --- What is refused: one value at a time ---


def test_a_dense_layer_ends_the_encoder():
    conv, _ = layers = AUTOENCODER["encoder_layers"]
    assert autoencoder(encoder_layers=[*layers, ["dense", 8]]).encoder_layers[-1] == ("dense", 8)
    (line,) = lines(AUTOENCODER | {"encoder_layers": [["dense", 8], conv]})
    assert line.startswith('my.json: encoder_layers: must have no "dense" before its last layer')


ADD_LAYER = [
    (["conv", 32], "", 'must be ["conv", filters, kernel_size] or [', '["conv", 32, [3, 3]]'),
    (["conv", 32, [3, 3], 2], ".strides", "[height, width]", "Write [2, 2]."),
    (["convTranspose", 32, [3, 3], [2, 2]], "", "must begin with", "belongs in decoder_layers"),
    (["pool"], "", 'must be ["pool", size]', '["pool", [2, 2]]'),
    (["batchNorm", 1], "", 'must be ["batchNorm"]', "for example"),
    (["conv", 0, [3, 3]], ".filters", "from 1 to 4096, got 0", ""),
    (["conv", True, [3, 3]], ".filters", "whole number", "true and false are not numbers"),
    (["conv", 32.0, [3, 3]], ".filters", "got 32.0", "Write 32, without the decimal point."),
    (["conv", "32", [3, 3]], ".filters", 'got "32"', "without quotes"),
    (["conv", 32, 3], ".kernel_size", "[height, width]", "Write [3, 3]."),
    (["conv", 32, [3, None]], ".kernel_size", "got [3, null]", ""),
    (["drop", 1], ".rate", "from 0 up to but not including 1, got 1", ""),
    (["upsample", [2, 2]], "", "must begin with", '"upSample" belongs in decoder_layers'),
    (["conv2d", 8, [3, 3]], "", "must begin with", 'Did you mean "conv"?'),
    ([3], "", '"conv", "pool", "batchNorm", "drop" or "dense", got [3]', ""),
    ([], "", 'must be a list such as ["conv", 32, [3, 3]]', ""),
    ("conv", "", 'must be a list such as ["conv", 32, [3, 3]], got "conv"', ""),
]


@pytest.mark.parametrize(("layer", "path", "required", "remedy"), ADD_LAYER)
def test_wrong_encoder_layer(layer, path, required, remedy):
    layers = [*AUTOENCODER["encoder_layers"], layer]
    (line,) = lines(AUTOENCODER | {"encoder_layers": layers})
    assert line.startswith(f"my.json: encoder_layers[2]{path}: must ")
    assert required in line
    assert remedy in line


WRONG_VALUES = [
    ("encoder_layers", [], "encoder_layers", "a list of 1 to 100 layers", ""),
    ("encoder_layers", [["batchNorm"]] * 101, "encoder_layers", "a list of 1 to 100 layers", ""),
    ("decoder_layers", [["dense", 8]], "decoder_layers[0]", "begin", "last in encoder_layers"),
    (
        "decoder_layers",
        [["flatten"]],
        "decoder_layers[0]",
        '"convTranspose", "upSample", "pool"',
        "",
    ),
    ("optimizer", "adam", "optimizer", "[name, rate]", 'Write for example ["adam", 0.001].'),
    ("optimizer", ["adam", 1, 1, 1], "optimizer", "[name, rate]", '["adam", 0.001]'),
    ("optimizer", ["adan", 0.1], "optimizer.name", '"adadelta", "adafactor"', '"adam"?'),
    ("optimizer", ["adam", 0], "optimizer.learning_rate", "above 0, at most 10, got 0", ""),
    ("optimizer", ["adam", 1, -1], "optimizer.full_learning_rate", "above 0", ""),
    ("batch_size", 0, "batch_size", "whole number from 1 to 65536, got 0", ""),
    ("batch_size", 1e2, "batch_size", "got 100.0", "Write 100, without"),
    ("activation_function", "tanh", "activation_function", '"Sigmoid", "Linear" or "Relu"', ""),
    ("loss", "mean_squared", "loss", "must be", 'Did you mean "mean_squared_error"?'),
    ("validation_split", 0.91, "validation_split", "from 0 to 0.9, got 0.91", ""),
    ("seed", -1, "seed", "from 0 to 4294967295, got -1", ""),
    ("early_stopping", False, "early_stopping", "null or a whole", "true and false are not"),
    ("denoise", 0.1, "denoise", "null or an object such as", ""),
    ("denoise", {"cutout": 2}, "denoise.cutout", "from 0 to 1, got 2", ""),
    ("augmentation", {"rotation": 181}, "augmentation.rotation", "degrees from 0 to 180", ""),
    ("augmentation", {"zoom": "0.1"}, "augmentation.zoom", "from 0 to 0.5", "without quotes"),
    ("augmentation", {"rotate": 1}, "augmentation.rotate", "not a known key", '"rotation"?'),
    ("learning_rate_schedule", "cosine", "learning_rate_schedule", '["cosine"]', ""),
    ("learning_rate_schedule", ["cosin"], "learning_rate_schedule", "begin", '"cosine"?'),
    ("learning_rate_schedule", ["exponential", 1], "learning_rate_schedule.factor", "0 and 1", ""),
    ("mixed_precision", 1, "mixed_precision", "must be true or false", ""),
    ("activation", "Relu", "activation", "is not a known key", '"activation_function"?'),
    ("learning_rate", 0.1, "learning_rate", "is not a known key", 'Did you mean "optimizer"?'),
    ("xyz", 3, "xyz", "is not a known key", "the keys are optimizer, batch_size,"),
    ("a\nb", 3, '"a\\nb"', "is not a known key", "Remove it"),
]


WRONG_IN_A_CLASSIFIER = [
    ("dense_layers", [["conv", 8, [3, 3]]], "dense_layers[0]", "begin", "in encoder_layers or"),
    ("encoder_layers", 3, "encoder_layers", "the path of a saved model, a list", ""),
    ("dense_only_train_epochs", -1, "dense_only_train_epochs", "from 0 to 100000", ""),
    ("epochs", 3, "epochs", "known key", '"dense_only_train_epochs" or "full_train_epochs"?'),
    ("noise", 0.1, "noise", "is not a known key", "Remove it"),
]
WRONG = [
    *(("autoencoder", *row) for row in WRONG_VALUES),
    *(("classifier", *row) for row in WRONG_IN_A_CLASSIFIER),
]


@pytest.mark.parametrize(("kind", "key", "value", "path", "required", "remedy"), WRONG)
def test_wrong_value(kind, key, value, path, required, remedy):
    (line,) = lines(DOCUMENTS[kind] | {key: value}, kind)
    assert line.startswith(f"my.json: {path}: ")
    assert required in line
    assert remedy in line


@pytest.mark.parametrize("key", ["encoder_layers", "decoder_layers", "optimizer", "epochs"])
def test_missing_key(key):
    document = {name: value for name, value in AUTOENCODER.items() if name != key}
    (line,) = lines(document)
    assert line.startswith(f'my.json: {key}: is required, got nothing. Add for example "{key}": ')


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_examples_for_missing_keys_are_valid(kind):
    fields = CONFIGS[kind].model_fields
    parse({key: fields[key].examples[0] for key in fields if fields[key].is_required()}, kind)


def test_keys_that_depend_on_each_other():
    """One line each, which does not blame the loss for a wrong activation."""
    changes = {"activation_function": "relu", "loss": "binary_crossentropy"}
    (line,) = lines(AUTOENCODER | changes)
    assert line.startswith("my.json: loss: must not be binary_crossentropy")
    (line,) = lines(AUTOENCODER | changes | {"activation_function": "x"})
    assert line.startswith("my.json: activation_function: must be")
    (line,) = lines(CLASSIFIER | dict.fromkeys(PHASE_KEYS, 0), "classifier")
    assert line.startswith("my.json: full_train_epochs: must not be 0 when dense_only_train_epochs")
    assert parse(CLASSIFIER | {"full_train_epochs": 0}, "classifier").full_train_epochs == 0


def test_all_problems_at_once_in_the_order_of_the_file():
    document = {"epochs": 0, "bach_size": 32, "optimizer": ["adma", 0]}
    document |= {"encoder_layers": [["conv", 0, [3, 3]], ["pool", 2]], "decoder_layers": []}
    paths = [line.split(": ")[1] for line in lines(document)]
    assert paths[:4] == ["epochs", "bach_size", "optimizer.name", "optimizer.learning_rate"]
    assert paths[4:] == ["encoder_layers[0].filters", "encoder_layers[1].size", "batch_size"]


@pytest.mark.parametrize(
    ("document", "kind", "program"),
    [
        (CLASSIFIER, "autoencoder", "classification.py"),
        (AUTOENCODER, "classifier", "autoencoder.py"),
        ({"model_info": CLASSIFIER | {"batch_size": 0}}, "autoencoder", "classification.py"),
    ],
)
def test_a_file_for_the_other_program_gets_one_line(document, kind, program):
    (line,) = lines(document, kind)
    assert line.endswith(f"got one for {program}. Use it with {program}.")


# --- What is refused: the file ---


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "my.json: must be a JSON object, got an empty file"),
        ("[1]", "my.json: must be an object, {...}, got [1]."),
        ('"x"', 'my.json: must be an object, {...}, got "x".'),
        ('{"model_info": 3}', "my.json: model_info: must be an object, {...}, got 3."),
        (
            '{"model_info": {}, "epochs": 1}',
            'no keys besides model_info, got "epochs". Move them into model_info.',
        ),
        ("[" * 100_000, "my.json: must be nested at most 20 deep"),
        ('{"a":' * 30 + "1" + "}" * 30, "my.json: must be nested at most 20 deep"),
        (r'{"\ud800": 1}', r"must be valid Unicode, got \ud800, which is half a character"),
    ],
)
def test_text_that_holds_no_configuration(text, message):
    (line,) = lines(text)
    assert message in line


@pytest.mark.parametrize(
    ("text", "place", "remedy"),
    [
        ('{"a": [1,]}', "line 1, column ", "Remove the comma before the closing bracket."),
        ('{\n "a": 1,\n}', "line ", "Remove the comma before the closing bracket."),
        ("{'a': 1}", "line 1, column 2", "Use double quotes."),
        ('{"a": 1} {"b": 2}', "line 1, column 10", "Remove what follows the object."),
        ('{\n  "a": 1 // one\n}', "line 2, column 10", "Remove the comment: JSON has none."),
        ("# hi\n{}", "line 1, column 1", "Remove the comment: JSON has none."),
        ('{"a": None}', "line 1, column 7", "Write true, false or null."),
        ('{"a": [1', "line 1, column 9", "The file ends too early: close all its brackets."),
        ('{"a" 1}', "line 1, column 6", "Look for a missing comma, quote or bracket here."),
        (r'{"a": "C:\models"}', "line 1, column 10", 'Write backslashes twice, or "/" in paths.'),
    ],
)
def test_syntax_errors_come_with_line_column_and_remedy(text, place, remedy):
    (line,) = lines(text)
    assert line.startswith(f"my.json: {place}")
    assert line.endswith(remedy)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
def test_numbers_that_are_not_finite(number):
    text = json.dumps(AUTOENCODER | {"l2": "?", "epochs": "?"}).replace('"?"', number)
    first, second = lines(text)
    assert re.match(r"my.json: epochs: must be a whole number .*, got (NaN|-?Infinity)", first)
    assert re.match(r"my.json: l2: must be a number from 0 to 1, got (NaN|-?Infinity)", second)


def test_keys_written_twice_are_all_named_beside_other_problems():
    text = json.dumps(AUTOENCODER)[:-1] + (
        ', "seed": 1, "seed": 1, "noise": 2, "augmentation": {"zoom": 0, "zoom": 0, "zoom": 0}}'
    )
    assert [line.partition(", got")[0] for line in lines(text)] == [
        "my.json: seed: must occur once in its object",
        "my.json: augmentation.zoom: must occur once in its object",
        "my.json: noise: must be a number from 0 to 1",
    ]
    (line,) = lines(json.dumps({"model_info": AUTOENCODER})[:-2] + ', "seed": 1, "seed": 1}}')
    assert line.startswith("my.json: model_info.seed: must occur once in its object")


@fewer
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda children: (
            st.lists(children, max_size=4)
            | st.dictionaries(
                st.sampled_from([*CONFIGS["autoencoder"].model_fields, "<conv>", "model_info"])
                | st.text(st.characters(), max_size=3),
                children,
                max_size=4,
            )
        ),
    ),
    st.sampled_from([*CONFIGS]),
)
def test_any_json_is_a_configuration_or_a_clear_error(document, kind):
    base = DOCUMENTS[kind]
    for candidate in (document, base | (document if isinstance(document, dict) else {})):
        try:
            parse(candidate, kind)
        except ConfigurationError as error:
            assert error.lines
            assert all(re.match(r"my\.json: .*(must|is) .*\S$", line) for line in error.lines)
            "".join(error.lines).encode()


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"])
def test_files_of_any_extension_with_or_without_byte_order_mark(tmp_path, prefix):
    path = tmp_path / "small.txt"
    path.write_bytes(prefix + json.dumps(AUTOENCODER).encode())
    assert load_config(path, "autoencoder") == autoencoder()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("my.json", json.dumps(AUTOENCODER | {"epochs": 0}).encode(), "epochs: must be"),
        ("my.json", b'{"a": "\xe9"}', "got byte 0xe9 at offset 7. Save it as UTF-8."),
        ("my.json", b" " * (MAX_FILE_BYTES + 1), f"must be at most {MAX_FILE_BYTES} bytes"),
        ("m.json", None, "Did you mean {folder}/my.json?"),
        ("nowhere/my.json", None, "there is no folder {folder}/nowhere."),
        ("", None, "must be a configuration file, got a folder"),
        ("\0.json", None, "must be the name of a file"),
    ],
)
def test_files_that_hold_no_configuration(tmp_path, name, content, message):
    (tmp_path / "my.json").write_bytes(content or b"")
    with pytest.raises(ConfigurationError) as caught:
        load_config(tmp_path / name, "autoencoder")
    (line,) = caught.value.lines
    assert message.format(folder=tmp_path) in line


# --- Flags ---


def test_override_returns_a_changed_copy():
    config = autoencoder()
    changed = override(config, epochs=3, batch_size=None, seed=7)
    assert (changed.epochs, changed.batch_size, changed.seed) == (3, 32, 7)
    assert config.epochs == 10
    assert override(config) == config
    both = override(parse(CLASSIFIER, "classifier"), epochs=3)
    assert (both.dense_only_train_epochs, both.full_train_epochs) == (3, 3)


def test_few_images_lengthen_a_training_and_the_time_between_refreshes():
    """100 steps are 25 epochs of 4 instead of 10, so that 2 epochs become 5."""
    unlabelled = {"label_spreading": {"refresh": 2}}
    config = parse(CLASSIFIER | {"min_steps": 100, "unlabelled": unlabelled}, "classifier")
    longer = config.lengthened(4)
    assert (longer.full_train_epochs, longer.dense_only_train_epochs) == (25, 5)
    assert longer.unlabelled.label_spreading.refresh == 5
    assert config.lengthened(10) == config and autoencoder(min_steps=7).lengthened(1).epochs == 10
    assert autoencoder(min_steps=21).lengthened(2).epochs == 11
    assert override(config, epochs=3).lengthened(1).full_train_epochs == 3
    assert override(config, full_train_epochs=0).lengthened(1).full_train_epochs == 0


def test_override_names_the_flags_once():
    for kind, document in DOCUMENTS.items():
        with pytest.raises(ConfigurationError) as caught:
            override(parse(document, kind), epochs=-1, batch_size=0)
        flags = [line.split(": must be a whole number from ")[0] for line in caught.value.lines]
        assert sorted(flags) == ["--batch-size", "--epochs"]
    with pytest.raises(ConfigurationError, match=r"^--epochs: must not be 0 when") as caught:
        override(parse(CLASSIFIER, "classifier"), epochs=0)
    assert len(caught.value.lines) == 1


# --- Writing ---

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


@fewer
@given(documents)
def test_what_is_written_is_read_back_the_same(document):
    kind, values = document
    config = parse(values, kind)
    text = dump_config(config)
    assert parse_config(text, "my.json", kind) == config
    assert dump_config(parse_config(text, "my.json", kind)) == text
    assert json.loads(text) == config.model_dump(mode="json")
    assert validate_config(config.model_dump(), "model_info", kind) == config


@fewer
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


# --- JSON Schema ---


def test_every_key_is_described():
    definitions = json_schema()["$defs"]
    for config in CONFIGS.values():
        properties = definitions[config.__name__]["properties"]
        assert [*properties] == ["$schema", "description", *config.model_fields]
        assert all(len(entry["description"]) > 10 for entry in properties.values())


@pytest.mark.parametrize(
    "document",
    [
        *(AUTOENCODER | {"encoder_layers": [layer]} for layer, _, _, _ in ADD_LAYER
          if layer != ["conv", 32.0, [3, 3]]),
        *(AUTOENCODER | {key: value} for key, value, _, _, _ in WRONG_VALUES
          if value != 1e2),
        AUTOENCODER | {"activation_function": "relu", "loss": "binary_crossentropy"},
        CLASSIFIER | {"dense_only_train_epochs": 0, "full_train_epochs": 0},
        CLASSIFIER | {"encoder_layers": []},
        CLASSIFIER | {"epochs": 3},
        {"model_info": AUTOENCODER, "epochs": 3},
        {"model_info": AUTOENCODER | {"epochs": 0}},
        {},
        [],
    ],
)  # fmt: skip
def test_the_json_schema_refuses_what_the_models_refuse(document):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json_schema())


@pytest.mark.parametrize("document", [AUTOENCODER, CLASSIFIER])
def test_the_json_schema_accepts_bare_and_wrapped(document):
    jsonschema.validate({"$schema": "schema.json", **document}, json_schema())
    jsonschema.validate({"$schema": "schema.json", "model_info": document}, json_schema())


@pytest.mark.slow  # loads Keras, for the list of its optimizers
def test_optimizers_are_those_of_keras():
    """Everything in `keras.optimizers` that works with a learning rate alone, and nothing else."""
    from keras import optimizers

    def needs_only_a_rate(candidate):
        try:
            candidate(learning_rate=0.001)
        except TypeError:
            return False  # wraps other optimizers
        return candidate is not optimizers.Optimizer

    found = {
        name.lower(): name
        for name, candidate in vars(optimizers).items()
        if isinstance(candidate, type)
        and issubclass(candidate, optimizers.Optimizer)
        and needs_only_a_rate(candidate)
    }
    assert found == OPTIMIZERS

"""What a configuration may say, and the one line that each wrong one gets."""

import jsonschema
import pytest
from configurations import AUTOENCODER, CLASSIFIER, DOCUMENTS, autoencoder, lines, parse

from cae.config.fields import OPTIMIZERS
from cae.config.load import validate_config
from cae.config.schema import CONFIGS, PHASE_KEYS, json_schema

# --- What is accepted ---


def test_defaults_are_filled_in():
    config = autoencoder()
    assert config.encoder_layers == (("conv", 32, (3, 3)), ("pool", (2, 2)))
    assert (config.loss, config.validation_split, config.seed) == ("binary_crossentropy", 0.1, 0)
    assert (config.early_stopping, config.noise, config.l2) == (None, 0.0, 0.0)
    assert parse(CLASSIFIER, "classifier").encoder_layers is None
    document = {key: value for key, value in AUTOENCODER.items() if key != "activation_function"}
    assert parse(document) == config


@pytest.mark.parametrize(
    ("changes", "has_validation", "is_imbalanced", "monitor"),
    [
        ({}, True, False, ("val_accuracy", "val_loss")),
        ({}, True, True, ("val_f1", "val_loss")),
        ({"best_epoch_by": "accuracy"}, True, True, ("val_accuracy", "val_loss")),
        ({"best_epoch_by": "last"}, True, True, ()),
        ({}, False, True, ("loss",)),
        # The training losses of different pseudo-labels cannot be compared.
        ({"unlabelled": {"pseudo_labels": {}}}, False, False, ()),
        ({"unlabelled": {"pseudo_labels": {}}}, True, False, ("val_accuracy", "val_loss")),
    ],
)
def test_what_chooses_the_best_epoch(changes, has_validation, is_imbalanced, monitor):
    config = parse(CLASSIFIER | changes, "classifier")
    assert config.get_monitor(has_validation, is_imbalanced) == monitor


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

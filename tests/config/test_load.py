"""Configurations: values given by flags and `--set KEY=VALUE`, and recipes, which hold two."""

import pytest
from configurations import DOCUMENTS, autoencoder, parse
from conftest import AUTOENCODER, CLASSIFIER, write_json

from cae.config.choices import ALL
from cae.config.load import (
    Recipe,
    choose_recipe,
    load_config,
    load_recipe,
    override,
    set_values,
    validate_config,
)
from cae.config.shipped import find_recipe, get_recipes
from cae.errors import ConfigurationError, UsageError


@pytest.fixture
def config():
    return validate_config(AUTOENCODER, "test", "autoencoder")


def test_override_returns_a_changed_copy():
    config = autoencoder()
    changed = override(config, epochs=3, batch_size=None, seed=7)
    assert (changed.epochs, changed.batch_size, changed.seed) == (3, 32, 7)
    assert config.epochs == 10
    assert override(config) == config
    both = override(parse(DOCUMENTS["classifier"], "classifier"), epochs=3)
    assert (both.dense_only_train_epochs, both.full_train_epochs) == (3, 3)


def test_few_images_lengthen_a_training_and_the_time_between_refreshes():
    """100 steps are 25 epochs of 4 instead of 10, so that 2 epochs become 5."""
    unlabelled = {"label_spreading": {"refresh": 2}}
    config = parse(
        DOCUMENTS["classifier"] | {"min_steps": 100, "unlabelled": unlabelled}, "classifier"
    )
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
        override(parse(DOCUMENTS["classifier"], "classifier"), epochs=0)
    assert len(caught.value.lines) == 1


def test_values_by_key_by_item_and_in_objects_that_are_null(config):
    changed = set_values(
        config,
        ["l2=1e-5", "loss=mean_squared_error", "encoder_layers.0.1=16", "augmentation.rotation=10"],
    )
    assert changed.l2 == 1e-5
    assert changed.loss == "mean_squared_error"
    assert changed.model_dump(mode="json")["encoder_layers"][0] == ["conv", 16, [3, 3]]
    assert changed.augmentation.rotation == 10
    assert changed.batch_size == 16


@pytest.mark.parametrize(
    ("assignment", "named"),
    [
        ("batch_sise=3", "batch_size"),
        ("batch_size=0", "from 1 to 65536, got 0"),
        ("batch_size", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("optimizer.2=1", "from 0 to 1"),
        ("l2.x=1", "0.0"),
        ("learning_rate=0.1", "Use --learning-rate 0.1."),
    ],
)
def test_wrong_assignments_are_named(config, assignment, named):
    with pytest.raises(ConfigurationError, match="--set") as error:
        set_values(config, [assignment])
    assert named in str(error.value)


def test_a_learning_rate_keeps_that_of_the_second_phase():
    document = CLASSIFIER | {"optimizer": ["adam", 0.001, 0.0001]}
    changed = override(validate_config(document, "here", "classifier"), learning_rate=0.5)
    assert tuple(changed.optimizer) == ("adam", 0.5, 0.0001)


def test_a_learning_rate_keeps_the_optimizer(config):
    changed = override(config, learning_rate=0.5)
    assert changed.model_dump(mode="json")["optimizer"] == ["adam", 0.5]
    with pytest.raises(ConfigurationError, match=r"--learning-rate: .* got -1"):
        override(config, learning_rate=-1)


# --- Recipes --------------------------------------------------------------------------------

HEAD = CLASSIFIER | {"dense_layers": [], "dense_only_train_epochs": 0}
NETWORK = HEAD | {"encoder_layers": [["conv", 2, [3, 3]]]}


@pytest.fixture
def write(tmp_path):
    def write(recipe):
        write_json(tmp_path / "mine.json", recipe)
        return tmp_path / "mine.json"

    return write


def test_a_recipe_of_two(write):
    path = write(
        {"description": "Mine.", "labels": 5, "autoencoder": AUTOENCODER, "classifier": HEAD}
    )
    recipe = load_recipe(path)
    assert (recipe.name, recipe.labels) == ("mine", 5)
    assert recipe.autoencoder == load_config(path, "autoencoder")
    assert recipe.classifier == load_config(path, "classifier")


def test_a_recipe_of_a_classifier_alone(write):
    path = write({"classifier": NETWORK})
    assert load_recipe(path).autoencoder is None
    assert load_config(path, "classifier").encoder_layers
    with pytest.raises(ConfigurationError, match=r"autoencoder.* Use it with classification\.py"):
        load_config(path, "autoencoder")


@pytest.mark.parametrize(
    ("recipe", "named"),
    [
        ({"autoencoder": AUTOENCODER}, ["classification.py"]),
        ({"classifier": HEAD}, ["classifier: encoder_layers: "]),
        (HEAD, ["must be a recipe"]),
        ({"labels": 0, "classifier": NETWORK}, ["labels: ", "from 1", "got 0"]),
        ({"labels": "al", "classifier": NETWORK}, ["labels: ", "all"]),
        ({"classifier": 3}, ["classifier: ", "got 3"]),
        ({"label": 3, "classifier": NETWORK}, ["label: ", 'Did you mean "labels"?']),
        (
            {"autoencoder": AUTOENCODER | {"epochs": 0}, "classifier": HEAD | {"batch_size": 0}},
            ["autoencoder: epochs: ", "classifier: batch_size: "],
        ),
    ],
)
def test_what_no_recipe_is(write, recipe, named):
    with pytest.raises(ConfigurationError, match=r"^\S*mine\.json: ") as error:
        load_recipe(write(recipe))
    assert all(words in str(error.value) for words in named)


@pytest.mark.parametrize(
    ("labels", "has_unlabelled", "chosen"),
    [(5, True, 10), (10, True, 10), (999, True, 100), (10**6, True, 1000), (999, False, ALL)],
)
def test_the_recipe_for_a_number_of_labels(labels, has_unlabelled, chosen):
    recipes = [Recipe("", count, None, None) for count in (1000, None, 10, ALL, 100)]
    assert choose_recipe(recipes, labels, has_unlabelled).labels == chosen


def test_no_recipe_for_a_number_of_labels():
    assert choose_recipe([Recipe("", ALL, None, None)], 10, has_unlabelled=True) is None
    assert choose_recipe([Recipe("", 10, None, None)], 10, has_unlabelled=False) is None


def test_recipes_are_in_order_of_their_labels():
    labels = [load_recipe(path).labels for path in get_recipes().values()]
    assert labels == [10, 100, 1000, ALL]


def test_recipes_by_name_or_path(write, tmp_path):
    path = write({})
    assert find_recipe(str(path)) == path
    assert find_recipe("few_labels_100") == get_recipes()["few_labels_100"]
    assert find_recipe("configuration/recipes/few_labels_100.json").exists()
    for wrong in ("few_labels_99", str(tmp_path / "none.json")):
        with pytest.raises(UsageError, match="few_labels_100"):
            find_recipe(wrong)

"""The shipped configurations: valid, up to date, and what the tables say."""

import importlib
import itertools
import json
import re
from pathlib import Path

import jsonschema
import pytest
from conftest import read_json

from cae.config import shipped
from cae.config.architecture import describe_architecture
from cae.config.choices import PROGRAMS
from cae.config.load import load_config, load_recipe
from cae.config.schema import AutoencoderConfig, json_schema
from cae.config.shapes import check_shapes
from cae.config.shipped import get_descriptions, get_recipes, read_object
from make_configs import ACCURACY, MSE, configurations, main, shipped_files

CONFIGURATION = Path(__file__).parents[2] / "configuration"
NAMES = [*configurations()]


def load(name):
    return load_config(CONFIGURATION / f"{name}.json", name.partition("_")[0])


@pytest.fixture
def folder(tmp_path):
    """A folder with every shipped file in it."""
    assert main(["--folder", str(tmp_path)]) == 0
    return tmp_path


def test_the_repository_is_up_to_date(capsys):
    assert main(["--check"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("path", sorted((CONFIGURATION / "recipes").glob("*.json")), ids=str)
def test_every_recipe_is_valid_and_fits_images_from_8x8_up(path):
    recipe = load_recipe(path)
    assert recipe.labels
    jsonschema.validate(read_json(path), json_schema())
    for height, width in itertools.product((8, 27, 28, 50), (8, 28, 45)):
        check_shapes(recipe.autoencoder or recipe.classifier, (height, width, 1), path.name)


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_file_is_valid_and_fits_images_from_8x8_up(name):
    for height, width in itertools.product(range(8, 41), (8, 27, 28, 50)):
        check_shapes(load(name), (height, width, 1), name)
    document = read_json(CONFIGURATION / f"{name}.json")
    jsonschema.validate(document, json_schema())
    assert next(iter(document.items())) == ("$schema", "schema.json")


def test_a_decoder_is_the_reverse_of_its_encoder():
    """28 → 14 → 7 → 14 → 28."""
    words = describe_architecture(load("autoencoder_large").model_dump(mode="json"))
    encoder, decoder = words.replace("upSample", "pool").split(" | ")
    assert encoder.split(" → ") == decoder.split(" → ")[::-1]
    assert encoder.count("pool 2×2") == 2


@pytest.mark.parametrize(
    ("variation", "inserted", "after"),
    [
        ("dropout", ("drop", 0.2), {"pool", "upSample"}),
        ("batch_normalization", ("batchNorm",), {"conv"}),
    ],
)
def test_a_variation_inserts_layers(variation, inserted, after):
    base, varied = load("autoencoder_large"), load(f"autoencoder_large_{variation}")
    for key in ("encoder_layers", "decoder_layers"):
        layers = getattr(varied, key)
        places = [index for index, layer in enumerate(layers) if layer == inserted]
        assert all(layers[index - 1].kind in after for index in places)
        assert len(places) == sum(layer.kind in after for layer in layers)
        assert tuple(layer for layer in layers if layer != inserted) == getattr(base, key)


@pytest.mark.parametrize("kind", PROGRAMS)
def test_the_list_says_what_each_costs_and_reaches(kind, capsys):
    program = importlib.import_module(PROGRAMS[kind].removesuffix(".py"))
    with pytest.raises(SystemExit) as end:
        program.main(["--list"])
    assert end.value.code == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    listed = dict(zip(lines[::2], lines[1::2], strict=True))
    recipes = {path for path in listed if "/recipes/" in path}
    names = {Path(path).stem for path in recipes}
    assert names == {name for name, path in get_recipes().items() if kind in read_object(path)}
    assert all(listed.pop(path) for path in recipes)
    assert {Path(path).stem for path in listed} == {x for x in NAMES if x.startswith(kind)}
    assert all("parameters" in text and "MNIST" in text for text in listed.values())


def test_what_the_list_says_is_what_was_measured():
    """The sizes of Keras' models, and the tables of docs/experiments.md."""
    page = (CONFIGURATION.parent / "docs" / "experiments.md").read_text(encoding="utf-8")
    errors = re.findall(
        r"^\| `autoencoder_(\w+)` \| [\d.]+ \| ([\d.]+) \| ([\d.]+) \|$", page, re.M
    )
    assert {name: (float(low), float(high)) for name, low, high in errors} == MSE
    heads = re.findall(
        r"^\| `classifier_(\w+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| [\d.]+ \| ([\d,]+) \|$",
        page,
        re.M,
    )
    found = {name: (float(mean), float(sd), float(rate)) for name, rate, mean, sd, _ in heads}
    assert found == ACCURACY
    descriptions = get_descriptions("classifier")
    for name, *_, parameters in heads:
        assert f"{parameters} parameters" in descriptions[f"configuration/classifier_{name}.json"]


def test_recipes_are_listed_first_for_both_programs(tmp_path, monkeypatch):
    recipes = tmp_path / "configuration" / "recipes"
    recipes.mkdir(parents=True)
    recipe = {"description": "Few labels.", "autoencoder": {}, "classifier": {}}
    (recipes / "few.json").write_text(json.dumps(recipe))
    (recipes.parent / "classifier_small_small.json").write_text('{"dense_layers": []}')
    monkeypatch.setattr(shipped, "ROOTS", (tmp_path,))
    assert get_descriptions("autoencoder") == {"configuration/recipes/few.json": "Few labels."}
    assert next(iter(get_descriptions("classifier"))) == "configuration/recipes/few.json"


def test_files_are_short():
    """A key that says what is the default anyway only makes a file harder to read."""
    optional = [key for key, field in AutoencoderConfig.model_fields.items() if field.default == 0]
    for name, content in shipped_files().items():
        if name.startswith("autoencoder") and "regularization" not in name:
            document = json.loads(content)
            assert not set(optional) & set(document)
            assert "validation_split" not in document


def test_check_lists_missing_different_and_stray_files(folder, capsys):
    (folder / "autoencoder_small.json").unlink()
    (folder / "schema.json").write_text("{}\n")
    (folder / "classifier_mine.json").touch()
    (folder / "my_own.json").touch()
    capsys.readouterr()
    assert main(["--folder", str(folder), "--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}/schema.json: differs",
        f"{folder}/autoencoder_small.json: missing",
        f"{folder}/classifier_mine.json: not shipped: rename or remove it",
    ]
    assert not (folder / "autoencoder_small.json").exists()


def test_check_names_what_is_wrong_in_recipes(folder, capsys):
    recipes = folder / "recipes"
    recipes.mkdir()
    valid = {"classifier": read_json(folder / "classifier_small_small.json")}
    valid["classifier"]["encoder_layers"] = [["conv", 2, [3, 3]]]
    for name, recipe in (
        ("a", valid | {"labels": 5}),
        ("b", valid),
        ("c", {"labels": 5, "autoencoder": {}, "classifier": {"optimizer": 1}}),
    ):
        (recipes / f"{name}.json").write_text(json.dumps(recipe))
    capsys.readouterr()
    assert main(["--folder", str(folder), "--check"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{recipes}/b.json: labels: ")
    assert all(line.startswith(f"{recipes}/c.json: ") for line in lines[1:])
    assert any("autoencoder: epochs: " in line for line in lines)
    assert any("classifier: optimizer: " in line for line in lines)


def test_writing_repairs_and_leaves_nothing_else_behind(folder):
    (folder / "autoencoder_small.json").write_text("{}\n")
    assert main(["--folder", str(folder)]) == 0
    assert main(["--folder", str(folder), "--check"]) == 0
    assert {path.name for path in folder.iterdir()} == set(shipped_files())


def test_a_new_folder_is_made(tmp_path, capsys):
    new = tmp_path / "a" / "b"
    assert main(["--folder", str(new)]) == 0
    assert capsys.readouterr().out == f"30 files written to {new}\n"


def test_a_file_instead_of_a_folder_is_one_line(tmp_path, capsys):
    path = tmp_path / "file"
    path.touch()
    assert main(["--folder", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"error: {path}: must be a folder") and "--folder" in line

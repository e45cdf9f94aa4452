"""The documents agree with the code: keys, flags, commands, files and links."""

import json
import re
import shlex

import pytest
from conftest import AUTOENCODER, ROOT, read_json

import autoencoder
import classification
import experiments
import make_configs
import predict
from cae.config.choices import METHODS
from cae.config.fields import Augmentation
from cae.config.load import add_new_keys, load_config, load_recipe, parse_config
from cae.config.schema import AutoencoderConfig, ClassifierConfig
from cae.config.shipped import get_recipes
from cae.config.study_schema import Chain, Study
from cae.errors import ConfigurationError
from cae.report.reference import LAYERS, SCHEDULES
from cae.studies.label_methods import dump_recipe
from cae.studies.label_results import get_columns, read_results, summarize

README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
MODULES = (autoencoder, classification, predict, experiments, make_configs)
PROGRAMS = {f"{module.__name__}.py": module for module in MODULES}
KINDS = ("autoencoder", "classifier")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data/README.md"]
PAGES += ROOT.glob("docs/*.md")
CODE = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
COMMANDS = {
    line.partition(" &&")[0]
    for page in PAGES
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    if not block.startswith("#!")
    for line in block.splitlines()
    if re.search(rf"python\S* (\./)?({'|'.join(map(re.escape, PROGRAMS))}) ", line)
}


@pytest.mark.parametrize("model", [AutoencoderConfig, ClassifierConfig, Augmentation, Study, Chain])
def test_every_key_is_in_the_reference(model):
    for key, field in model.model_fields.items():
        default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
        assert f"| `{key}` | {default} |" in REFERENCE
        assert " ".join(field.description.split()) in REFERENCE


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_flag_is_in_the_reference(program):
    for action in PROGRAMS[program].build_parser().all_actions():
        if action.option_strings and action.dest != "help":
            names = ", ".join(f"`{name}`" for name in action.option_strings)
            assert f"| {names}" in REFERENCE and f"| {action.help} |" in REFERENCE


@pytest.mark.parametrize("form", [*LAYERS, *SCHEDULES])
def test_every_layer_and_schedule_is_in_the_reference(form):
    start = f"| `{json.dumps(form.EXAMPLE)}` |"
    (row,) = (line for line in REFERENCE.splitlines() if line.startswith(start))
    assert all(f"`{argument}`: " in row for argument in form._fields[1:])


def test_every_row_of_the_reference_is_one_line():
    rows = [line for line in REFERENCE.splitlines() if "|" in line]
    assert all(line.startswith("| ") and line.endswith(" |") for line in rows)


def test_every_short_flag_has_a_long_form():
    for program in PROGRAMS.values():
        for action in program.build_parser().all_actions():
            names = action.option_strings
            assert not names or any(name.startswith("--") for name in names)


def test_the_files_are_in_readme():
    """Programs, and folders of the repository and of the library."""
    tree = next(block for language, block in CODE if not language and "cae/" in block)
    folders = [path.parent.name for path in ROOT.glob("cae/*/__init__.py")]
    names = [path.name for path in ROOT.glob("*.py")] + [f"{name}/" for name in folders]
    for name in [*names, "configuration/", "data/", "models/", "runs/", "tests/", "benchmarks/"]:
        assert re.search(rf"(^|\s){re.escape(name)}\s", tree, re.MULTILINE), name


def test_readme_is_short():
    assert len(README.encode()) <= 10_000


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_commands_are_accepted(command):
    """Flags exist, and shipped files are where the commands say."""
    words = shlex.split(command, comments=True)
    program = next(word for word in words if word in PROGRAMS)
    flags = words[words.index(program) + 1 :]
    PROGRAMS[program].build_parser().parse_args(flags)
    for word in flags:
        assert not word.startswith("configuration/") or (ROOT / word).is_file()


def get_anchors(page):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in get_anchors(linked), target


def test_the_example_configuration_is_the_small_autoencoder():
    (example,) = (block for language, block in CODE if language == "json")
    shipped = load_config(ROOT / "configuration" / "autoencoder_small.json", "autoencoder")
    assert parse_config(example, "README", "autoencoder") == shipped


def test_the_example_error_is_real():
    (shown,) = (block for language, block in CODE if not language and "error:" in block)
    layers = [["conv", 32, [3, 3]], ["polo", [2, 2]]]
    document = AUTOENCODER | {"encoder_layers": layers}
    with pytest.raises(ConfigurationError) as caught:
        parse_config(json.dumps(document), "my.json", "autoencoder")
    assert shown.splitlines() == [f"error: {line}" for line in caught.value.lines]


def test_readme_writes_idx_files(tmp_path, monkeypatch):
    from cae.data.datasets import check_dataset

    (snippet,) = (block for language, block in CODE if language == "python")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})
    assert check_dataset("my-images.idx", "my-labels.idx") == (500, (32, 32, 3))


class TestRecipes:
    """The measured recipes: benchmarks/recipes-mnist, which `make recipes` continues."""

    folder = ROOT / "benchmarks" / "recipes-mnist"

    def test_results_are_in_the_documents(self):
        columns = get_columns(summarize(read_results(self.folder / "results.csv")))
        rows = [[f"`{name}`" if name in METHODS else name for name in columns]]
        rows += [list(cells) for cells in zip(*columns.values(), strict=True)]
        document = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
        for row in rows:
            assert f"| {' | '.join(cell or '–' for cell in row)} |\n" in document

    def test_the_shipped_ones_were_measured(self):
        settings = read_json(self.folder / "settings.json")
        recipes = get_recipes()
        for recipe in settings["recipes"].values():
            halves = {kind: add_new_keys(recipe[kind], kind) for kind in KINDS if recipe[kind]}
            assert dump_recipe(load_recipe(recipes[recipe["name"]])) == recipe | halves

"""README, --help and the code tell the same story."""

import ast
import json
import re
import shlex
from pathlib import Path

import pytest

import autoencoder
import classification
import experiments
import make_configs
from cae.config.fields import Augmentation
from cae.config.load import parse_config
from cae.config.schema import AutoencoderConfig, ClassifierConfig
from cae.config.shapes import check_shapes
from cae.config.study_schema import Chain, Study
from cae.errors import ConfigurationError
from cae.report.reference import LAYERS, SCHEDULES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
PROGRAMS = {
    "autoencoder.py": autoencoder,
    "classification.py": classification,
    "experiments.py": experiments,
    "make_configs.py": make_configs,
}
CODE = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line
    for language, block in CODE
    if language == "sh"
    for line in block.splitlines()
    if re.search(r"\w+\.py", line)
]


@pytest.mark.parametrize("model", [AutoencoderConfig, ClassifierConfig, Augmentation, Study, Chain])
def test_every_key_is_in_the_reference(model):
    """Each has a row with its default and its meaning."""
    for key, field in model.model_fields.items():
        default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
        assert f"| `{key}` | {default} |" in REFERENCE
        assert field.description in REFERENCE


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_flag_is_in_the_reference(program):
    """Each has a row with the words of --help."""
    for action in PROGRAMS[program].build_parser().all_actions():
        if action.option_strings and action.dest != "help":
            names = ", ".join(f"`{name}`" for name in action.option_strings)
            assert f"| {names}" in REFERENCE and f"| {action.help} |" in REFERENCE


@pytest.mark.parametrize("form", [*LAYERS, *SCHEDULES])
def test_every_layer_and_schedule_is_in_the_reference(form):
    """Each has a row with an example, and its arguments by name."""
    start = f"| `{json.dumps(form.EXAMPLE)}` |"
    (row,) = (line for line in REFERENCE.splitlines() if line.startswith(start))
    assert all(f"`{argument}`: " in row for argument in form._fields[1:])


def test_every_short_flag_has_a_long_form():
    """-d is --dataset, and so on."""
    for program in PROGRAMS.values():
        for action in program.build_parser().all_actions():
            names = action.option_strings
            assert not names or any(name.startswith("--") for name in names)


def test_every_file_is_listed_with_its_job():
    """The job is the first line of the file's docstring."""
    for path in ROOT.glob("*.py"):
        job = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()[0]
        assert f"| `{path.name}` | {job} |" in README


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_accepted(command):
    """Flags exist, and shipped files are where the commands say."""
    words = shlex.split(command)
    program = next(word for word in words if word.endswith(".py"))
    flags = words[words.index(program) + 1 :]
    PROGRAMS[program].build_parser().parse_args(flags)
    for word in flags:
        assert not word.startswith("configuration/") or (ROOT / word).is_file()


def test_links_lead_somewhere():
    """Files and images that README and docs point to exist."""
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md"), ROOT / "data" / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_example_configuration_is_the_small_autoencoder():
    """What README shows is what is shipped."""
    (example,) = (block for language, block in CODE if language == "json")
    shipped = (ROOT / "configuration" / "autoencoder_small.json").read_text(encoding="utf-8")
    assert parse_config(example, "README", "autoencoder") == parse_config(
        shipped, "shipped", "autoencoder"
    )


def test_the_example_errors_are_real():
    """The lines README shows are the lines the program prints."""
    (shown,) = (block for language, block in CODE if not language and "error:" in block)
    lines = [line.removeprefix("error: ") for line in shown.splitlines()]
    document = {
        "encoder_layers": [["conv", 32, [3, 3]], ["polo", [2, 2]]],
        "decoder_layers": [],
        "optimizer": ["adam", 0.001],
        "batch_size": 32,
        "epochs": 1,
    }
    with pytest.raises(ConfigurationError) as caught:
        parse_config(json.dumps(document), "my.json", "autoencoder")
    assert caught.value.lines == lines[:1]
    document["encoder_layers"] = [["pool", [2, 2]], ["pool", [2, 2]]]
    document["decoder_layers"] = [["upSample", [2, 2]]]
    with pytest.raises(ConfigurationError) as caught:
        check_shapes(
            parse_config(json.dumps(document), "my.json", "autoencoder"), (28, 28, 1), "my.json"
        )
    assert caught.value.lines == lines[1:]


def test_readme_writes_idx_files(tmp_path, monkeypatch):
    """The snippet for numpy arrays runs, and what it writes can be read."""
    from cae.data.datasets import check_dataset

    (snippet,) = (block for language, block in CODE if language == "python")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})
    assert check_dataset("my-images.idx", "my-labels.idx") == (500, (32, 32, 3))

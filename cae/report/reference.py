"""The reference, docs/reference.md: tables of keys, flags and files, made from the code itself."""

import argparse
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from cae.config import fields, study_schema
from cae.config.fields import OPTIMIZERS, form_type
from cae.config.schema import AutoencoderConfig, ClassifierConfig, Config, RecipeKeys
from cae.errors import find_problems, listed, shown
from cae.records import run
from cae.studies import label_efficiency, trials

LAYERS = (
    fields.Conv,
    fields.StridedConv,
    fields.ConvTranspose,
    fields.Pool,
    fields.UpSample,
    fields.Dense,
    fields.BatchNorm,
    fields.Drop,
)
SCHEDULES = (fields.Cosine, fields.Exponential, fields.Step)


def build_reference(parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """The text of docs/reference.md, in Markdown.

    Args:
        parsers: Name of a program -> its command line.
    """
    return "\n\n".join([*_configuration(), *_studies(), *_flags(parsers), *_files()]) + "\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# --- Keys -----------------------------------------------------------------------------------


def _configuration() -> list[str]:
    return [
        "# Reference",
        "Written by `python make_configs.py`; do not edit.",
        "- [Keys of a configuration](#keys-of-a-configuration): [both kinds](#both-kinds), "
        "[autoencoder](#autoencoder), [classifier](#classifier), [layers](#layers), "
        "[learning-rate schedules](#learning-rate-schedules), "
        "[augmentation and denoise](#augmentation-and-denoise), "
        "[unlabelled images](#unlabelled-images), [recipes](#recipes)\n"
        "- [Keys of a study](#keys-of-a-study)\n"
        "- [Flags](#flags)\n"
        "- [Files of a run](#files-of-a-run), [of a study](#files-of-a-study), "
        "[of label-efficiency](#files-of-label-efficiency)",
        "## Keys of a configuration",
        "The keys may also stand in an object `model_info`. `$schema` names the JSON Schema for "
        "editors; `description` is the text that `--list` shows. Training ignores both.",
        "### Both kinds",
        _key_table(Config),
        "### Autoencoder",
        _key_table(AutoencoderConfig, beyond=Config),
        "### Classifier",
        _key_table(ClassifierConfig, beyond=Config),
        "The learning-rate schedule starts again in each phase of a classifier.",
        "### Optimizers",
        f"By name: {listed((f'`{name}`' for name in OPTIMIZERS), 'and')}.",
        "### Layers",
        _form_table("layer", LAYERS),
        "- Where pools or strides do not divide the size of an autoencoder's images, sizes round "
        "up, and the decoder crops the surplus rows and columns.\n"
        "- The `upSample` and `convTranspose` layers must undo the pools and strides.\n"
        "- If `encoder_layers` ends with a dense layer, the decoder begins with a dense layer "
        "(relu) that restores the shape before it; `decoder_layers` follow.",
        "### Learning-rate schedules",
        _form_table("schedule", SCHEDULES),
        "### Augmentation and denoise",
        _key_table(fields.Augmentation),
        "### Unlabelled images",
        "Keys of `unlabelled`:",
        _key_table(fields.Unlabelled),
        'Keys of `label_spreading`, by Zhou et al. 2004, "Learning with local and global '
        'consistency":',
        _key_table(fields.LabelSpreading),
        'Keys of `pseudo_labels`, by Sohn et al. 2020, "FixMatch", and, for `align`, Berthelot '
        'et al. 2020, "ReMixMatch":',
        _key_table(fields.PseudoLabels),
        "### Recipes",
        "A recipe is a file with other keys, of which `-c` takes the configuration that it needs:",
        _key_table(RecipeKeys),
    ]


def _studies() -> list[str]:
    parts = {
        "`data`": study_schema.Data,
        "each of `bases`": study_schema.Base,
        "`encoder` of a base": study_schema.BestEncoder,
        "`vary`": study_schema.Vary,
        "each range of `search`": study_schema.Range,
        "`screening`": study_schema.Screening,
    }
    sections = ["## Keys of a study", _key_table(study_schema.Study)]
    for name, model in parts.items():
        sections += [f"Keys of {name}:", _key_table(model)]
    return [
        *sections,
        "A chain of studies has other keys:",
        _key_table(study_schema.Chain),
        "Paths are relative to the file of the study or chain.",
    ]


def _dump_given(value: BaseModel) -> dict[str, Any]:
    return value.model_dump(exclude_defaults=True)


def _key_table(model: type[BaseModel], beyond: type[BaseModel] = BaseModel) -> str:
    """The keys of a model that `beyond` does not have."""
    allowed = _get_allowed(model, dict.fromkeys(model.model_fields, object()))
    rows = []
    for key, field in model.model_fields.items():
        if key not in beyond.model_fields:
            default = (
                "required"
                if field.is_required()
                else f"`{json.dumps(field.default, default=_dump_given)}`"
            )
            null = ", or null" if field.default is None and "null" not in allowed[key] else ""
            meaning = " ".join(field.description.split())
            rows.append((f"`{key}`", default, allowed[key] + null, meaning))
    return _table(("key", "default", "allowed", "meaning"), rows)


def _form_table(title: str, forms: Iterable[Any]) -> str:
    rows = []
    for form in forms:
        kind, *examples = form.EXAMPLE
        value = (kind, *(object() for _ in examples))
        allowed = _get_allowed(form_type(form), value) if examples else {}
        words = "<br>".join(f"`{key}`: {words}" for key, words in allowed.items())
        meaning = " ".join(inspect.getdoc(form).split())
        rows.append((f"`{shown(form.EXAMPLE)}`", words or "none", meaning))
    return _table((title, "arguments", "meaning"), rows)


def _get_allowed(schema: Any, wrong: Any) -> dict[str, str]:
    """What is allowed at each path, in the words of the errors about wrong values."""
    try:
        TypeAdapter(schema).validate_python(wrong)
    except ValidationError as invalid:
        problems = find_problems(invalid, schema)
        return {problem.path: problem.required.removeprefix("must be ") for problem in problems}
    return {}


# --- Flags ----------------------------------------------------------------------------------


def _flags(parsers: Mapping[str, argparse.ArgumentParser]) -> list[str]:
    sections = ["## Flags"]
    for program, parser in parsers.items():
        commands = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if not commands:
            sections += [f"### `{program}`", _flag_table(parser)]
        for command, subparser in commands[0].choices.items() if commands else ():
            sections += [f"### `{program} {command}`", _flag_table(subparser)]
    return sections


def _flag_table(parser: argparse.ArgumentParser) -> str:
    rows = []
    for action in parser._actions:
        if action.dest != "help":
            names = ", ".join(f"`{name}`" for name in action.option_strings)
            value = action.metavar or ",".join(map(str, action.choices or ()))
            value = f"[{value}]" if value and action.nargs == "?" else value
            value = f"`{value}`" if value else ""
            rows.append((f"{names} {value}".strip(), action.help))
    return _table(("flag", "meaning"), rows)


# --- Files ----------------------------------------------------------------------------------


def _files() -> list[str]:
    run_folder = (
        "In `runs/<UTC time>-<name>/`, or the folder given by `--run-dir`. The name ends in "
        "`.partial` until the run is complete."
    )
    study_folder = "In `runs/<study>/`; for a chain in `runs/<chain>/<study>/`."
    label_folder = "In `runs/label-efficiency-<data set>/` or `runs/recipes-<data set>/`."
    parts = []
    for title, words, files in (
        ("a run", run_folder, run.FILES),
        ("a study", study_folder, trials.FILES),
        ("label-efficiency", label_folder, label_efficiency.FILES),
    ):
        rows = ((f"`{name}`", meaning) for name, meaning in files.items())
        parts += [f"## Files of {title}", words, _table(("file", "content"), rows)]
    return parts

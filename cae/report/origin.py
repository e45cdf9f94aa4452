"""The origin of results: machine, versions, data, and the commands that reproduce them."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cae import terminal
from cae.config.shapes import format_shape
from cae.programs.flags import to_words
from cae.programs.start import name_command
from cae.programs.starting_points import see_from_here
from cae.records.environment import Environment
from cae.records.run import OUTPUT_FLAGS, FileRecord, Start
from cae.report.pages import Code, Section, Table


def origin_sections(
    environments: Sequence[Environment], models: Sequence[FileRecord], commands: Sequence[str]
) -> list[Section]:
    """The sections at the end of a page.

    Args:
        environments: Of all runs on the page.
        models: The saved models that they began with.
        commands: The command lines that repeat them.
    """
    reproduce = "How to reproduce it"
    if not environments:
        return [Section(reproduce, [Code("\n".join(commands))])]
    return [
        Section("Environment", [_environment_facts(environments)]),
        Section("Data", _data_tables(environments, models)),
        Section(reproduce, _reproduce_blocks(environments, commands)),
    ]


def _environment_facts(environments: Sequence[Environment]) -> dict[str, str]:
    days = sorted(environment.day for environment in environments)
    seeds = sorted({e.seed for e in environments if e.seed is not None})
    facts = {
        "trained": " to ".join(dict.fromkeys((days[0], days[-1]))),
        "machine": _distinct(f"{e.platform}, {e.cores} cores" for e in environments),
        "computed on": _distinct(e.device for e in environments),
        "Python": _distinct(e.python for e in environments),
        "packages": _distinct(
            ", ".join(f"{name} {version}" for name, version in e.versions.items())
            for e in environments
        ),
        "program": _distinct(e.git_commit for e in environments),
        "seeds": ", ".join(map(str, seeds)),
    }
    return {name: value for name, value in facts.items() if value}


def _distinct(values: Iterable[str | None]) -> str:
    return "; ".join(dict.fromkeys(filter(None, values)))


def _data_tables(environments: Sequence[Environment], models: Sequence[FileRecord]) -> list[Table]:
    used = [(role, data) for e in environments for role, data in e.data.items()]
    sets = dict.fromkeys(
        (role, data.name, data.shape[0], format_shape(data.shape[1:]), data.dtype)
        for role, data in used
    )
    read = [(role, file) for role, data in used for file in data.files]
    files = dict.fromkeys(
        (role, terminal.relative(file.path), file.bytes, file.sha256)
        for role, file in [*read, *(("model", model) for model in models)]
    )
    return [
        Table.from_rows("Images", ("role", "data set", "images", "size", "pixels"), sets),
        Table.from_rows("Files", ("role", "file", "bytes", "SHA-256"), files),
    ]


def _reproduce_blocks(environments: Sequence[Environment], commands: Sequence[str]) -> list[Any]:
    latest = max(environments, key=lambda environment: environment.started)
    packages = [f"{name}=={version}" for name, version in latest.versions.items()]
    commit, _, dirty = (latest.git_commit or "").partition("-")
    lines = [f"git checkout {commit}"] * bool(commit)
    lines += [shlex.join(["python", "-m", "pip", "install", *packages]), *commands]
    return [
        "Run these commands in the folder of the program, with the same data. The same versions "
        "on the same kind of machine give the same numbers.",
        *["The program had uncommitted changes."] * bool(dirty),
        Code("\n".join(lines)),
    ]


def training_command(folder: Path, start: Start) -> str:
    """The command line that trains the configuration of a run again."""
    given = see_from_here(start).model_dump(exclude=OUTPUT_FLAGS | {"save"})
    words = to_words(given | {"config": terminal.relative(folder / "config.json")})
    return shlex.join([*name_command(start.program), *words])

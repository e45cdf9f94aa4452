"""Studies: JSON files that say which configurations to train and which value decides.

A study lists configurations to begin with, what to vary in them, and a metric on validation
images. A chain lists studies; its classifiers can use the best encoders of earlier studies::

    {
      "name": "rates",
      "kind": "autoencoder",
      "data": {"dataset": "mnist"},
      "bases": [{"configuration": "../autoencoder_small.json"}],
      "vary": {"search": {"learning_rate": {"low": 0.0001, "high": 0.01, "scale": "log"}}},
      "metric": "val_mse",
      "seeds": 3,
      "screening": {"epochs": 2, "finalists": 3}
    }

All problems of a file are reported together, as for configurations. Paths in a study are relative
to its file.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cae.config.json_text import parse_json, read_text
from cae.config.load import load_config, override, replace_learning_rate, validate_config
from cae.config.schema import Config
from cae.config.study_schema import (
    MAX_TRIAL_NAME,
    MAX_TRIALS,
    METRICS,
    Base,
    Chain,
    Range,
    Study,
    Vary,
)
from cae.errors import ConfigurationError, UserError, shown

if TYPE_CHECKING:
    import numpy as np

# A key that can be varied although it is only a part of another.
LEARNING_RATE = "learning_rate"
SCREENING = "-screening"  # ends the name of the study that chooses candidates for another


@dataclass(frozen=True)  # a tuple would lose its names in Ray
class Trial:
    """One configuration with one seed."""

    base: str  # the name of the base that it belongs to
    configuration: str  # what it is called without its seed
    config: Config  # the seed included
    model: str | None  # the saved model that its encoder comes from
    digest: str  # of everything that its result depends on

    @property
    def name(self) -> str:
        """What its configuration is called, without the kind that all trials of a study have."""
        return self.configuration.removeprefix(f"{self.config.kind}_")

    @property
    def id(self) -> str:
        """A readable name that no other trial has, the same in every start."""
        return f"{self.name}-seed{self.config.seed}-{self.digest[:8]}"


@dataclass(frozen=True)
class StudyFile:
    """A study with its file, from which its paths are read."""

    path: Path
    study: Study

    def resolve(self, path: str) -> Path:
        """A path as it is meant in the file."""
        return self.path.parent / path

    @property
    def rounds(self) -> list["StudyFile"]:
        """The study, and before it the screening as a study of its own, if there is one."""
        screening = self.study.screening
        if screening is None:
            return [self]
        data = self.study.data
        changes = {
            "name": f"{self.study.name}{SCREENING}",
            "data": data.model_copy(update={"limit": _least(data.limit, screening.limit)}),
            "epochs": _least(self.study.epochs, screening.epochs),
            "seeds": self.study.seeds[:1],
            "screening": None,
        }
        return [StudyFile(self.path, self.study.model_copy(update=changes)), self]


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def load_stages(path: str | Path) -> tuple[str, list[StudyFile]]:
    """Reads a study, or a chain and all of its studies.

    Returns:
        The name, and the studies in their order; a study of its own is the only one.

    Raises:
        ConfigurationError: With every problem of the first file that has any.
    """
    path = Path(path)
    loaded = _load(path)
    if isinstance(loaded, Study):
        return loaded.name, [StudyFile(path, loaded)]
    stages, names = [], set()
    for n, stage in enumerate(loaded.stages):
        where, file = f"{path}: stages[{n}]", path.parent / stage
        study = _load(file)
        if isinstance(study, Chain):
            raise ConfigurationError(where, "must be a study", "a chain", "Name its studies.")
        stages.append(StudyFile(file, study))
        for part in stages[-1].rounds:
            if part.study.name in names:
                name = shown(part.study.name)
                raise ConfigurationError(where, "must have a name of its own", name, "Rename it.")
            names.add(part.study.name)
    return loaded.name, stages


def _load(path: Path) -> Study | Chain:
    def validate(document: Any) -> Study | Chain:
        if not isinstance(document, dict):
            raise ConfigurationError(path, "must be an object, {...}", shown(document))
        schema = Chain if document.get("kind") == "chain" else Study
        try:
            return schema.model_validate(document)
        except ValidationError as invalid:
            raise ConfigurationError.from_validation(path, invalid, schema) from None

    return parse_json(read_text(path), path, validate)


# --- Expansion ------------------------------------------------------------------------------


def expand(
    file: StudyFile, data: Any, models: dict[str, tuple[str | None, str | None]]
) -> list[Trial]:
    """All trials of a study, in the order in which they run: those on the same encoder together.

    Args:
        file: The study.
        data: What identifies its data, as JSON.
        models: Title of a base -> path of the model its encoder comes from, and its SHA-256.

    Raises:
        ConfigurationError: A configuration is wrong, or a varied value is not allowed.
    """
    problems: list[UserError] = []
    trials: dict[str, Trial] = {}
    for base in file.study.bases:
        model, model_digest = models.get(base.title, (None, None))
        for title, config in _configurations(file, base, problems):
            for seed in file.study.seeds:
                seeded = override(config, seed=seed, epochs=file.study.epochs)
                content = [base.title, seeded.model_dump(mode="json"), data, model_digest]
                content += [base.model_flags] * bool(base.model_flags)
                digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
                trial = Trial(base.title, title, seeded, model, digest)
                trials.setdefault(digest, trial)  # a base can be one of its own variations
    if not problems and len(trials) > MAX_TRIALS:
        problems = [UserError(file.path, f"must have at most {MAX_TRIALS} trials", len(trials))]
    if problems:
        raise ConfigurationError.joining(problems)
    encoders = list(dict.fromkeys(trial.model for trial in trials.values()))
    return sorted(trials.values(), key=lambda trial: encoders.index(trial.model))


def _configurations(
    file: StudyFile, base: Base, problems: list[UserError]
) -> Iterator[tuple[str, Config]]:
    """The configurations of a base without their seeds; what is wrong is added to `problems`."""
    for path in base.paths:
        config = load_config(file.resolve(path), file.study.kind)
        for changes in _changes(file.study.vary):
            title = _name(base.title_of(path), changes)
            try:
                yield title, _change(config, changes, f"{file.path}: vary ({title})")
            except ConfigurationError as error:
                problems.append(error)


def _changes(vary: Vary | None) -> Iterator[dict[str, Any]]:
    """What each sample of a search or point of a grid changes."""
    if vary is None:
        yield {}
    elif vary.grid:
        for values in itertools.product(*vary.grid.values()):
            yield dict(zip(vary.grid, values, strict=True))
    else:
        import numpy as np  # takes as long to load as all else that a wrong study needs

        rng = np.random.default_rng(vary.seed)
        for _ in range(vary.samples):
            yield {key: _draw(rng, drawn_from) for key, drawn_from in vary.search.items()}


def _draw(rng: "np.random.Generator", drawn_from: Range) -> float | int:
    import numpy as np

    low, high = drawn_from.low, drawn_from.high
    if drawn_from.scale == "log":
        return drawn_from.tidy(float(np.exp(rng.uniform(np.log(low), np.log(high)))))
    if drawn_from.is_whole:
        return int(rng.integers(int(low), int(high) + 1))
    return drawn_from.tidy(float(rng.uniform(low, high)))


def _change(config: Config, changes: dict[str, Any], where: str) -> Config:
    """The configuration with other values, validated like those of a file."""
    document = config.model_dump(mode="json")
    changes = dict(changes)
    if LEARNING_RATE in changes:
        optimizer = changes.get("optimizer", document["optimizer"])
        document["optimizer"] = replace_learning_rate(optimizer, changes.pop(LEARNING_RATE))
    return validate_config(document | changes, where, config.kind)


def _name(title: str, changes: dict[str, Any]) -> str:
    """The name of a changed configuration, fit for a folder."""
    parts = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    name = re.sub(r"[^\w.=-]+", "-", "-".join([title, *parts])).strip("-=.")
    if len(name) <= MAX_TRIAL_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: MAX_TRIAL_NAME - 9].strip('-=.')}-{digest}"


def hyperparameters_of(model_info: dict[str, Any]) -> dict[str, Any]:
    """The values of a configuration one can compare: all but the seed, the learning rate apart."""
    values = {key: value for key, value in model_info.items() if key != "seed"}
    name, rate, *others = values["optimizer"]
    return {**values, "optimizer": [name, *others], LEARNING_RATE: rate}


def is_larger_better(kind: str, metric: str) -> bool:
    """The direction of a metric, also of one that cannot decide a study."""
    return METRICS[kind].get(metric, metric.endswith(("accuracy", "f1")))

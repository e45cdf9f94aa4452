"""Studies: JSON files that say which configurations to train and which value decides.

A study is a list of configurations to begin with, what to vary in them, and a metric on
validation images; a chain is a list of studies, whose classifiers use the best encoders of the
autoencoders before them::

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

All problems of a file are reported together, as in `hyperparameters`.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cae.config.fields import MAX_EPOCHS, MAX_SEED, Number
from cae.config.json_text import parse_json, read_text
from cae.config.load import load_config, override, validate_config
from cae.config.schema import Config
from cae.errors import ConfigurationError, UserError, shown

MAX_TRIALS = 10_000
MAX_LABEL = 80  # characters of a trial's name, which is also the name of a folder
# The metrics that can decide, all on validation images: True where larger is better.
METRICS = {
    "autoencoder": {"val_mse": False, "val_loss": False},
    "classifier": {"val_accuracy": True, "val_f1": True, "val_loss": False},
}
# A varied key that is a part of another.
LEARNING_RATE = "learning_rate"


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Data(_Strict):
    """The images, named as by the flags of the programs."""

    dataset: str
    labels: str | None = None
    test: str | None = None
    test_labels: str | None = None
    limit: Annotated[int, Field(ge=1)] | None = None


class Range(_Strict):
    """Where a search draws the values of a key from; whole numbers if both ends are."""

    low: Number
    high: Number
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _check_order(self) -> "Range":
        if not self.low < self.high:
            raise ValueError("must have a low end below its high end")
        if self.scale == "log" and self.low <= 0:
            raise ValueError('must have a low end above 0 with "scale": "log"')
        return self


class Vary(_Strict):
    """What changes in every configuration: every combination of a grid, or draws of a search."""

    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    search: dict[str, Range] = {}
    samples: Annotated[int, Field(ge=1, le=MAX_TRIALS)] = 10
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0

    @model_validator(mode="after")
    def _check_one(self) -> "Vary":
        if bool(self.grid) == bool(self.search):
            raise ValueError('must have either "grid" or "search"')
        return self


class Screening(_Strict):
    """A first round of fewer images or epochs, after which only the best are trained in full.

    One step of successive halving: Jamieson and Talwalkar 2016, "Non-stochastic best arm
    identification and hyperparameter optimization", arXiv:1502.07943.

    Attributes:
        finalists: How many configurations of each base go on, with all seeds.
        limit: The images of the first round; None: all.
        epochs: The epochs of the first round, for a classifier of each phase; None: all.
    """

    finalists: Annotated[int, Field(ge=1, le=MAX_TRIALS)]
    limit: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] | None = None

    @model_validator(mode="after")
    def _check_cheaper(self) -> "Screening":
        if self.limit is None and self.epochs is None:
            raise ValueError('must have "limit" or "epochs"')
        return self


class BestEncoder(_Strict):
    """The best autoencoder of a base in another study, which has run in the same folder."""

    study: str
    base: str


def _count_seeds(value: Any) -> Any:
    return list(range(value)) if type(value) is int and 0 < value <= MAX_TRIALS else value


Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=MAX_LABEL)]


class Base(_Strict):
    """A configuration, and further ones that are variations of it; paths from the study's file."""

    name: Name | None = None
    configuration: str
    variations: list[str] = []
    encoder: BestEncoder | None = None
    model: str | None = None

    @property
    def label(self) -> str:
        """Its name; without one that of its file."""
        return self.name or Path(self.configuration).stem

    def label_of(self, path: str) -> str:
        """What one of its configurations is called."""
        stem = Path(path).stem
        if path == self.configuration:
            return self.label
        return f"{self.name}-{stem}" if self.name else stem

    @model_validator(mode="after")
    def _check_encoder(self) -> "Base":
        if self.encoder and self.model:
            raise ValueError('must have either "encoder" or "model"')
        return self


Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class Study(_Strict):
    """Configurations of one kind on the same data.

    Attributes:
        name: Also the name of its folder.
        kind: What is trained.
        data: On which images.
        bases: What to begin with.
        vary: What to change in each; None: nothing.
        metric: The value on validation images that decides.
        seeds: Every configuration is trained with each of them.
        epochs: Instead of every configuration's; of a classifier for each phase.
        screening: What comes first; its trials have the first seed alone.
    """

    name: Name
    kind: Literal["autoencoder", "classifier"]
    data: Data
    bases: Annotated[list[Base], Field(min_length=1)]
    vary: Vary | None = None
    metric: str
    seeds: Annotated[
        list[Seed], Field(min_length=1, max_length=MAX_TRIALS), BeforeValidator(_count_seeds)
    ] = [0]
    epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] | None = None
    screening: Screening | None = None

    @model_validator(mode="after")
    def _check_metric(self) -> "Study":
        allowed = METRICS[self.kind]
        if self.metric not in allowed:
            raise ValueError(f'must have one of {", ".join(allowed)} as "metric" for this kind')
        return self

    @model_validator(mode="after")
    def _check_labels(self) -> "Study":
        labels = [base.label for base in self.bases]
        repeated = [label for n, label in enumerate(labels) if label in labels[:n]]
        if repeated:
            raise ValueError(f'must give each of the bases {repeated[0]} a "name" of its own')
        return self

    @property
    def larger_is_better(self) -> bool:
        """The direction of the metric."""
        return METRICS[self.kind][self.metric]


class Chain(_Strict):
    """Studies that run one after another; paths from the chain's file."""

    name: Name
    kind: Literal["chain"]
    stages: Annotated[list[str], Field(min_length=1)]


class Trial(NamedTuple):
    """One configuration with one seed.

    Attributes:
        base: The name of the base that it belongs to.
        configuration: What it is called without its seed.
        config: Its hyperparameters, the seed included.
        model: The saved model that its encoder comes from.
        digest: Of everything that its result depends on.
    """

    base: str
    configuration: str
    config: Config
    model: str | None
    digest: str

    @property
    def id(self) -> str:
        """A readable name that no other trial has, the same in every start."""
        return f"{self.configuration}-seed{self.config.seed}-{self.digest[:8]}"


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
            "name": f"{self.study.name}-screening",
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
    stages = [StudyFile(path.parent / stage, _load(path.parent / stage)) for stage in loaded.stages]
    problems = [
        UserError(f"{path}: stages[{n}]", "must be a study", "a chain", "Name its studies instead.")
        for n, stage in enumerate(stages)
        if isinstance(stage.study, Chain)
    ]
    if not problems:
        names = [(n, part.study.name) for n, stage in enumerate(stages) for part in stage.rounds]
        problems = [
            UserError(
                f"{path}: stages[{n}]", "must have a name of its own", shown(name), "Rename it."
            )
            for place, (n, name) in enumerate(names)
            if name in [name for _, name in names[:place]]
        ]
    if problems:
        raise ConfigurationError.joining(problems)
    return loaded.name, stages


def _load(path: Path) -> Study | Chain:
    document, problems = parse_json(read_text(path), str(path))
    if not isinstance(document, dict):
        raise ConfigurationError(path, "must be an object, {...}", shown(document))
    schema = Chain if document.get("kind") == "chain" else Study
    try:
        loaded = schema.model_validate(document)
    except ValidationError as invalid:
        error = ConfigurationError.from_validation(
            path, invalid, schema, "See configuration/studies."
        )
        raise ConfigurationError.joining([*problems, error]) from None
    if problems:
        raise ConfigurationError.joining(problems)
    return loaded


# --- Expansion ------------------------------------------------------------------------------


def expand(
    file: StudyFile,
    data: Any,
    models: dict[str, tuple[str | None, str | None]],
) -> list[Trial]:
    """All trials of a study, in the order in which they run: those on the same encoder together.

    Args:
        file: The study.
        data: What tells its data from others, as JSON.
        models: Label of a base -> path of the model its encoder comes from, and its SHA-256.

    Raises:
        ConfigurationError: A configuration is wrong, or a varied value is not allowed.
    """
    study = file.study
    problems: list[UserError] = []
    trials: dict[str, Trial] = {}
    for base in study.bases:
        model, model_digest = models.get(base.label, (None, None))
        for label, config in _configurations(file, base, problems):
            for seed in study.seeds:
                seeded = override(config, seed=seed, epochs=study.epochs)
                content = [base.label, seeded.model_dump(mode="json"), data, model_digest]
                digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
                trial = Trial(base.label, label, seeded, model, digest)
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
    for path in [base.configuration, *base.variations]:
        config = load_config(file.resolve(path), file.study.kind)
        for changes in _changes(file.study.vary):
            label = _label(base.label_of(path), changes)
            try:
                yield label, _change(config, changes, f"{file.path}: vary ({label})")
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
        rng = np.random.default_rng(vary.seed)
        for _ in range(vary.samples):
            yield {key: _draw(rng, drawn_from) for key, drawn_from in vary.search.items()}


def _draw(rng: np.random.Generator, drawn_from: Range) -> float | int:
    low, high = drawn_from.low, drawn_from.high
    if drawn_from.scale == "log":
        value = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    else:
        value = float(rng.uniform(low, high))
    if isinstance(low, int) and isinstance(high, int):
        return round(value)
    return float(f"{value:.4g}")  # digits that people can read and type again


def _change(config: Config, changes: dict[str, Any], where: str) -> Config:
    """The configuration with other values, validated like those of a file."""
    document = config.model_dump(mode="json")
    changes = dict(changes)
    if LEARNING_RATE in changes:
        name, _, *others = changes.get("optimizer", document["optimizer"])
        document["optimizer"] = [name, changes.pop(LEARNING_RATE), *others]
    return validate_config(document | changes, where, config.kind)


def _label(name: str, changes: dict[str, Any]) -> str:
    """The name of a changed configuration, fit for a folder."""
    parts = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    return re.sub(r"[^\w.=-]+", "-", "-".join([name, *parts]))[:MAX_LABEL].strip("-=.")


def hyperparameters_of(model_info: dict[str, Any]) -> dict[str, Any]:
    """The values of a configuration one can compare: all but the seed, the learning rate apart."""
    values = {key: value for key, value in model_info.items() if key != "seed"}
    name, rate, *others = values["optimizer"]
    return {**values, "optimizer": [name, *others], LEARNING_RATE: rate}


def is_larger_better(kind: str, metric: str) -> bool:
    """The direction of a metric, also of one that cannot decide a study."""
    return METRICS[kind].get(metric, metric.endswith(("accuracy", "f1")))

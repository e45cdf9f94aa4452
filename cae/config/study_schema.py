"""The schema of the JSON files of studies."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cae.config.choices import INPUT_RANGES, MAX_EPOCHS, MAX_SEED
from cae.config.values import Number, integer_type, refusal, worded
from cae.errors import listed, shown

MAX_TRIALS = 10_000
MAX_LABEL = 80  # characters of a trial's name, which is also the name of a folder
MAX_LIMIT = 2**32 - 1  # images; what the header of an idx file can say
# The metrics that can decide, all on validation images: True where larger is better.
METRICS = {
    "autoencoder": {"val_mse": False, "val_loss": False},
    "classifier": {"val_accuracy": True, "val_f1": True, "val_loss": False},
}
Text = Annotated[str, Field(min_length=1), worded("must be text in double quotes")]
FilePath = Annotated[str, Field(min_length=1), worded("must be the path of a file")]
Name = Annotated[
    str,
    Field(pattern=r"^\w[\w.-]*$", max_length=MAX_LABEL),
    worded(f'must be a name of letters, digits and "_.-", at most {MAX_LABEL} characters'),
]
Epochs = integer_type(1, MAX_EPOCHS)
Limit = integer_type(1, MAX_LIMIT)
Seed = integer_type(0, MAX_SEED)


def _listing(what: str, at_least: int = 1) -> BeforeValidator:
    def check(value: Any) -> Any:
        if not isinstance(value, list) or len(value) < at_least:
            raise refusal(f"must be a list of {what}" + ", at least one" * at_least)
        return value

    return BeforeValidator(check)


def _count_seeds(value: Any) -> Any:
    if type(value) is int and 0 < value <= MAX_TRIALS:
        return list(range(value))
    if not isinstance(value, list) or not 0 < len(value) <= MAX_TRIALS:
        raise refusal(f"must be a number of seeds from 1 to {MAX_TRIALS}, or a list of seeds")
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Data(_Strict):
    """The images, named as by the flags of the programs."""

    dataset: Annotated[
        Text, Field(description="An idx file of images, or a named data set.", examples=["mnist"])
    ]
    labels: Annotated[Text | None, Field(description="An idx file of labels.")] = None
    test: Annotated[Text | None, Field(description="An idx file of test images.")] = None
    test_labels: Annotated[Text | None, Field(description="An idx file of test labels.")] = None
    limit: Annotated[
        Limit | None, Field(description="Use only the first so many training images; null: all.")
    ] = None


class Range(_Strict):
    """A range from which a search draws values; whole numbers if both ends are."""

    low: Annotated[Number, Field(description="Lower end.", examples=[0.0001])]
    high: Annotated[Number, Field(description="Upper end.", examples=[0.01])]
    scale: Annotated[
        Literal["linear", "log"],
        worded('must be "linear" or "log"'),
        Field(description="Whether values are uniform in the range or in its logarithm."),
    ] = "linear"

    @model_validator(mode="after")
    def _check_order(self) -> "Range":
        if not self.low < self.high:
            raise refusal("must have a low end below its high end")
        if self.scale == "log" and self.low <= 0:
            raise refusal('must have a low end above 0 with "scale": "log"')
        return self


class Vary(_Strict):
    """What changes in every configuration: a grid of values, or a random search."""

    grid: Annotated[
        dict[str, Annotated[list[Any], _listing("values")]],
        Field(description="Key of the configuration → list of values; all combinations are tried."),
    ] = {}
    search: Annotated[
        dict[str, Range],
        Field(
            description="Key of the configuration → range to draw from: an object with `low`, "
            "`high` and `scale`. `learning_rate` is the rate of the `optimizer`."
        ),
    ] = {}
    samples: Annotated[
        integer_type(1, MAX_TRIALS), Field(description="How many draws a search makes.")
    ] = 10
    seed: Annotated[Seed, Field(description="Seed of the draws.")] = 0

    @model_validator(mode="after")
    def _check_one(self) -> "Vary":
        if bool(self.grid) == bool(self.search):
            raise refusal('must have either "grid" or "search"')
        return self


class Screening(_Strict):
    """A first round on fewer images or epochs; only the best are then trained in full.

    One step of successive halving: Jamieson and Talwalkar 2016, "Non-stochastic best arm
    identification and hyperparameter optimization", arXiv:1502.07943.
    """

    finalists: Annotated[
        integer_type(1, MAX_TRIALS),
        Field(
            description="How many configurations of each base are trained in full.", examples=[2]
        ),
    ]
    limit: Annotated[
        Limit | None, Field(description="Training images of the first round; null: all.")
    ] = None
    epochs: Annotated[
        Epochs | None,
        Field(description="Epochs of the first round, for a classifier of each phase; null: all."),
    ] = None

    @model_validator(mode="after")
    def _check_cheaper(self) -> "Screening":
        if self.limit is None and self.epochs is None:
            raise refusal('must have "limit" or "epochs"')
        return self


class BestEncoder(_Strict):
    """The best autoencoder of a base of another study, which has run in the same folder."""

    study: Annotated[
        Text, Field(description="Name of a study of autoencoders.", examples=["autoencoders"])
    ]
    base: Annotated[
        Text, Field(description="Name of one of its bases.", examples=["autoencoder_small"])
    ]


class Base(_Strict):
    """A configuration to begin with, and variations of it."""

    configuration: Annotated[
        FilePath,
        Field(description="File of the configuration.", examples=["../autoencoder_small.json"]),
    ]
    name: Annotated[
        Name | None,
        Field(description="Name of the base; null: that of the file, without its extension."),
    ] = None
    variations: Annotated[
        list[FilePath],
        _listing("files", at_least=0),
        Field(description="Files of further configurations."),
    ] = []
    encoder: Annotated[
        BestEncoder | None,
        Field(
            description="For classifiers: use the encoder of the best autoencoder of another "
            'study, such as `{"study": "autoencoders", "base": "autoencoder_small"}`.'
        ),
    ] = None
    model: Annotated[
        FilePath | None, Field(description="For classifiers: use the encoder of this saved model.")
    ] = None
    encoder_until: Annotated[
        Text | None, Field(description="As the flag `--encoder-until`, for the saved `model`.")
    ] = None
    model_input_range: Annotated[
        Literal[INPUT_RANGES] | None,
        worded(f"must be {listed(map(shown, INPUT_RANGES))}, or null"),
        Field(description="As the flag `--model-input-range`, for the saved `model`."),
    ] = None

    @property
    def label(self) -> str:
        """Its name; without one that of its file."""
        return self.name or Path(self.configuration).stem

    @property
    def model_flags(self) -> dict[str, str]:
        """Those of the keys that say how the saved model is to be understood that are given."""
        return self.model_dump(include={"encoder_until", "model_input_range"}, exclude_none=True)

    def label_of(self, path: str) -> str:
        """The name of one of its configurations."""
        stem = Path(path).stem
        if path == self.configuration:
            return self.label
        return f"{self.name}-{stem}" if self.name else stem

    @model_validator(mode="after")
    def _check_encoder(self) -> "Base":
        if self.encoder and self.model:
            raise refusal('must have either "encoder" or "model"')
        if self.model_flags and not self.model:
            raise refusal(f'must have a "model" for its {listed(self.model_flags, "and")}')
        return self


class Study(_Strict):
    """Configurations of one kind, trained on the same data."""

    name: Annotated[
        Name, Field(description="Name of the study and of its directory.", examples=["my-study"])
    ]
    kind: Annotated[
        Literal["autoencoder", "classifier"],
        worded('must be "autoencoder", "classifier" or "chain"'),
        Field(description="What is trained.", examples=["autoencoder"]),
    ]
    data: Annotated[
        Data,
        Field(description="The images, named as by the flags.", examples=[{"dataset": "mnist"}]),
    ]
    bases: Annotated[
        list[Base],
        _listing("bases"),
        Field(
            description="The configurations to begin with.",
            examples=[[{"configuration": "../autoencoder_small.json"}]],
        ),
    ]
    vary: Annotated[
        Vary | None, Field(description="What to change in each configuration; null: nothing.")
    ] = None
    metric: Annotated[
        Text,
        Field(
            description="The value on validation images that decides: "
            + "; ".join(
                f"of {kind}s {listed(f'`{metric}`' for metric in metrics)}"
                for kind, metrics in METRICS.items()
            )
            + ".",
            examples=["val_mse"],
        ),
    ]
    seeds: Annotated[
        list[Seed],
        BeforeValidator(_count_seeds),
        Field(description="How many seeds, or which, every configuration is trained with."),
    ] = [0]
    epochs: Annotated[
        Epochs | None,
        Field(
            description="Epochs instead of every configuration's, for a classifier of each phase."
        ),
    ] = None
    screening: Annotated[
        Screening | None,
        Field(
            description="A first round with the first seed on fewer images or epochs, recorded as "
            "a study named `<name>-screening`; only its best configurations are trained in full."
        ),
    ] = None

    @field_validator("bases")
    @classmethod
    def _check_labels(cls, bases: list[Base]) -> list[Base]:
        labels = [base.label for base in bases]
        repeated = [label for n, label in enumerate(labels) if label in labels[:n]]
        if repeated:
            raise refusal(
                f"must have different names, not {shown(repeated[0])} twice",
                'Give each of them a "name".',
            )
        return bases

    @field_validator("metric")
    @classmethod
    def _check_metric(cls, metric: str, info: ValidationInfo) -> str:
        kind = info.data.get("kind")  # None if that was refused
        if kind and metric not in METRICS[kind]:
            raise refusal(f"must be {listed(METRICS[kind])} for studies of {kind}s")
        return metric

    @property
    def larger_is_better(self) -> bool:
        """The direction of the metric."""
        return METRICS[self.kind][self.metric]


class Chain(_Strict):
    """Studies that run one after another."""

    name: Annotated[
        Name, Field(description="Name of the chain and of its directory.", examples=["my-research"])
    ]
    kind: Annotated[
        Literal["chain"],
        worded('must be "chain"'),
        Field(description="That it is a chain.", examples=["chain"]),
    ]
    stages: Annotated[
        list[FilePath],
        _listing("files"),
        Field(
            description="Files of studies, in order.",
            examples=[["autoencoders.json", "classifiers.json"]],
        ),
    ]

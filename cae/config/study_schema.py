"""The schema of the JSON files of studies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from cae.config.choices import CHANGED, COLORS, INPUT_RANGES, MAX_IMAGES, RESIZE
from cae.config.fields import Epochs, Keys, Seed
from cae.config.schema import PHASE_KEYS
from cae.config.values import integer_type, number_type, refusal, suggest_number, worded
from cae.errors import listed, shown

MAX_TRIALS = 10_000
EPOCH_KEYS = ("epochs", *PHASE_KEYS, "min_steps")  # what `epochs` of a study replaces
MAX_TRIAL_NAME = 80  # characters of a trial's name, which is also the name of a folder
# The metrics that can decide, all on validation images: True where larger is better.
METRICS = {
    "autoencoder": {"val_mse": False, "val_loss": False},
    "classifier": {"val_accuracy": True, "val_f1": True, "val_loss": False},
}
Text = Annotated[str, Field(min_length=1), worded("must be text in double quotes")]
FilePath = Annotated[str, Field(min_length=1), worded("must be the path of a file")]
Name = Annotated[
    str,
    Field(pattern=r"^\w[\w.-]*$", max_length=MAX_TRIAL_NAME),
    worded(f'must be a name of letters, digits and "_.-", at most {MAX_TRIAL_NAME} characters'),
]
Changed = Literal[CHANGED]
ImageSize = Annotated[
    list[integer_type(1, 9999)],
    Field(min_length=2, max_length=2),
    worded("must be [height, width] in pixels"),
]
Limit = integer_type(1, MAX_IMAGES)


def _count_seeds(value: Any) -> Any:
    if type(value) is int and 0 < value <= MAX_TRIALS:
        return list(range(value))
    if not isinstance(value, list) or not 0 < len(value) <= MAX_TRIALS:
        raise refusal(f"must be a number of seeds from 1 to {MAX_TRIALS}, or a list of seeds")
    return value


class Data(Keys):
    """The images, named as by the flags of the programs."""

    dataset: Text = Field(examples=["mnist"])
    """Images: a folder of pictures, a table, an .npz, .npy or idx file, or a named data set."""

    labels: Text | None = None
    """Labels of an idx or .npy file of images."""

    test: Text | None = None
    """Test images, in any form that `dataset` takes."""

    test_labels: Text | None = None
    """Labels of an idx or .npy file of test images."""

    limit: Limit | None = None
    """Use only this many training images, drawn by the seed of each trial; stratified by class if
    there are labels; null: all."""

    unlabelled: Text | None = None
    """More training images, without labels, for classifiers whose configuration uses them."""

    labels_per_class: Limit | None = None
    """For classifiers: use the labels of only this many images per class, drawn by the seed of each
    trial; null: all."""

    invert: Changed | None = None
    """Swap dark and bright in these images; null: in none."""

    transpose: Changed | None = None
    """Swap rows and columns of these images; null: of none."""

    image_size: ImageSize | None = None
    """Bring pictures to this height and width; null: the most frequent size up to 64 per side."""

    color: Literal[COLORS] | None = None
    """Convert pictures; null keeps colour if any has it."""

    resize: Literal[RESIZE] | None = None
    """Fit other aspect ratios by padding, cropping or stretching; null: by padding."""

    test_split: number_type("from 0 to 0.9", ge=0, le=0.9) | None = None
    """Share of every class to hold out for testing, if there are no test images; null: 0.2."""

    class_names: Text | None = None
    """Names of the labels in ascending order: `a,b,c` or a text file with one per line."""


# An end of a range, whole or not; numbers that are infinite or of hundreds of digits are mistakes.
End = Annotated[
    int | float,
    Field(ge=-1e12, le=1e12),
    worded("must be a number from -1e12 to 1e12", suggest_number),
]


class Range(Keys):
    """A range from which a search draws values; whole numbers if both ends are."""

    low: End = Field(examples=[0.0001])
    """Lower end."""

    high: End = Field(examples=[0.01])
    """Upper end."""

    scale: Literal["linear", "log"] = "linear"
    """Whether values are uniform in the range or in its logarithm."""

    @model_validator(mode="after")
    def _check_order(self) -> "Range":
        if not self.low < self.high:
            raise refusal("must have a low end below its high end")
        if self.scale == "log" and self.low <= 0:
            raise refusal('must have a low end above 0 with "scale": "log"')
        return self

    @property
    def is_whole(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def tidy(self, value: float) -> float | int:
        """A value of it with digits that people can read and type again."""
        if self.is_whole:
            return round(value)
        if value in (self.low, self.high):  # they may have more digits
            return value
        return min(max(float(f"{value:.4g}"), self.low), self.high)


class Vary(Keys):
    """What changes in every configuration: a grid of values, or a random search."""

    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field({})
    """Key of the configuration → list of values; all combinations are tried."""

    search: dict[str, Range] = Field({})
    """Key of the configuration → range to draw from: an object with `low`, `high` and `scale`.
    `learning_rate` is the rate of the `optimizer`."""

    samples: integer_type(1, MAX_TRIALS) = 10
    """How many draws a search makes."""

    seed: Seed = 0
    """Seed of the draws."""

    def get_keys(self, among: Sequence[str]) -> list[str]:
        """Those of the keys that it changes."""
        return [key for key in among if key in (self.grid or self.search)]

    @model_validator(mode="after")
    def _check_one(self) -> "Vary":
        if bool(self.grid) == bool(self.search):
            raise refusal('must have either "grid" or "search"')
        if self.get_keys(["seed"]):
            raise refusal('must not vary "seed"', 'Give "seeds" to the study.')
        return self


class Screening(Keys):
    """A first round on fewer images or epochs; only the best are then trained in full.

    One step of successive halving: Jamieson and Talwalkar 2016, "Non-stochastic best arm
    identification and hyperparameter optimization", arXiv:1502.07943.
    """

    finalists: integer_type(1, MAX_TRIALS) = Field(examples=[2])
    """How many configurations of each base are trained in full."""

    limit: Limit | None = None
    """Training images of the first round; null: all."""

    epochs: Epochs | None = None
    """Epochs of the first round, for a classifier of each phase; null: all."""

    @model_validator(mode="after")
    def _check_cheaper(self) -> "Screening":
        if self.limit is None and self.epochs is None:
            raise refusal('must have "limit" or "epochs"')
        return self


class BestEncoder(Keys):
    """The best autoencoder of a base of another study, which has run in the same folder."""

    study: Text = Field(examples=["autoencoders"])
    """Name of a study of autoencoders."""

    base: Text = Field(examples=["autoencoder_small"])
    """Name of one of its bases."""


class Base(Keys):
    """A configuration to begin with, and variations of it."""

    configuration: FilePath = Field(examples=["../autoencoder_small.json"])
    """File of the configuration."""

    name: Name | None = None
    """Name of the base; null: that of the file, without its extension."""

    variations: list[FilePath] = Field([])
    """Files of further configurations."""

    encoder: BestEncoder | None = None
    """For classifiers: use the encoder of the best autoencoder of another study, such as
    `{"study": "autoencoders", "base": "autoencoder_small"}`."""

    model: FilePath | None = None
    """For classifiers: use the encoder of this saved model."""

    encoder_until: Text | None = None
    """As the flag `--encoder-until`, for the saved `model`."""

    model_input_range: Literal[INPUT_RANGES] | None = None
    """As the flag `--model-input-range`, for the saved `model`."""

    @property
    def title(self) -> str:
        """Its name; without one that of its file."""
        return self.name or Path(self.configuration).stem

    @property
    def model_flags(self) -> dict[str, str]:
        """Those of the keys that say how the saved model is to be understood that are given."""
        return self.model_dump(include={"encoder_until", "model_input_range"}, exclude_none=True)

    @property
    def paths(self) -> list[str]:
        """The files of its configurations."""
        return [self.configuration, *self.variations]

    def title_of(self, path: str) -> str:
        """The name of one of its configurations."""
        stem = Path(path).stem
        if path == self.configuration:
            return self.title
        return f"{self.name}-{stem}" if self.name else stem

    @model_validator(mode="after")
    def _check_encoder(self) -> "Base":
        if self.encoder and self.model:
            raise refusal('must have either "encoder" or "model"')
        if self.model_flags and not self.model:
            raise refusal(f'must have a "model" for its {listed(self.model_flags, "and")}')
        return self


class Study(Keys):
    """Configurations of one kind, trained on the same data."""

    name: Name = Field(examples=["my-study"])
    """Name of the study and of its folder."""

    kind: Annotated[
        Literal["autoencoder", "classifier"],
        worded('must be "autoencoder", "classifier" or "chain"'),
    ] = Field(examples=["autoencoder"])
    """What is trained."""

    data: Data = Field(examples=[{"dataset": "mnist"}])
    """The images, named as by the flags."""

    bases: list[Base] = Field(
        min_length=1, examples=[[{"configuration": "../autoencoder_small.json"}]]
    )
    """The configurations to begin with."""

    vary: Vary | None = None
    """What to change in each configuration; null: nothing."""

    metric: Text = Field(examples=["val_mse"])
    """The value on validation images that decides: of autoencoders `val_mse` or `val_loss`; of
    classifiers `val_accuracy`, `val_f1` or `val_loss`."""

    seeds: Annotated[list[Seed], BeforeValidator(_count_seeds)] = Field([0])
    """How many seeds, or which, every configuration is trained with."""

    epochs: Epochs | None = None
    """Epochs instead of every configuration's, for a classifier of each phase."""

    screening: Screening | None = None
    """A first round with the first seed on fewer images or epochs, recorded as a study named
    `<name>-screening`; only its best configurations are trained in full."""

    @field_validator("bases")
    @classmethod
    def _check_titles(cls, bases: list[Base]) -> list[Base]:
        titles = [base.title for base in bases]
        repeated = [title for n, title in enumerate(titles) if title in titles[:n]]
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

    @field_validator("epochs")
    @classmethod
    def _are_not_varied(cls, epochs: int | None, info: ValidationInfo) -> int | None:
        vary = info.data.get("vary")  # None if that was refused
        if epochs and vary and (varied := vary.get_keys(EPOCH_KEYS)):
            raise refusal(f"must be left out where vary has {listed(varied, 'and')}")
        return epochs

    @field_validator("screening")
    @classmethod
    def _has_epochs_of_its_own(
        cls, screening: Screening | None, info: ValidationInfo
    ) -> Screening | None:
        if screening:
            cls._are_not_varied(screening.epochs, info)
        return screening

    @property
    def is_larger_better(self) -> bool:
        """The direction of the metric."""
        return METRICS[self.kind][self.metric]


class Chain(Keys):
    """Studies that run one after another."""

    name: Name = Field(examples=["my-research"])
    """Name of the chain and of its folder."""

    kind: Literal["chain"] = Field(examples=["chain"])
    """That it is a chain."""

    stages: list[FilePath] = Field(
        min_length=1, examples=[["autoencoders.json", "classifiers.json"]]
    )
    """Files of studies, in order."""

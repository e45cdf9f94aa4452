"""The schema of the JSON files of hyperparameters: what they may say, and what is wrong in one.

The keys and layers are those of the original Python dicts, as JSON::

    {
      "encoder_layers": [["conv", 32, [3, 3]], ["pool", [2, 2]]],
      "decoder_layers": [["upSample", [2, 2]], ["conv", 32, [3, 3]]],
      "optimizer": ["adam", 0.001],
      "batch_size": 32,
      "epochs": 10,
      "activation_function": "Sigmoid"
    }

bare or wrapped in ``{"model_info": {...}}``. All problems of a file are reported together, each
with the path of the value at fault. Nothing here needs Keras, so a bad file is refused at once.
"""

import difflib
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, NoReturn, Union

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    WrapValidator,
    field_validator,
)
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import ErrorDetails, PydanticCustomError

from errors import ConfigurationError, UserError

# Upper bounds so that a slip of the finger (3200 for 320) does not eat the memory.
MAX_FILTERS = 4096
MAX_KERNEL = 63  # pixels
MAX_POOL = 32  # pixels
MAX_UNITS = 65536
MAX_LAYERS = 100
MAX_BATCH_SIZE = 65536  # images
MAX_EPOCHS = 100_000
MAX_LEARNING_RATE = 10
MAX_VALIDATION_SPLIT = 0.9
MAX_SEED = 2**32 - 1  # what NumPy accepts
MAX_FILE_BYTES = 1_000_000
MAX_NESTING = 20  # brackets within brackets; a configuration needs 5

# The optimizers of Keras that need nothing but a learning rate: our name -> the class in
# `keras.optimizers`. Take them from there by class: `keras.optimizers.get("lamb")` fails in 3.15.
OPTIMIZERS = {
    "adadelta": "Adadelta",
    "adafactor": "Adafactor",
    "adagrad": "Adagrad",
    "adam": "Adam",
    "adamw": "AdamW",
    "adamax": "Adamax",
    "ftrl": "Ftrl",
    "lamb": "Lamb",
    "lion": "Lion",
    "muon": "Muon",
    "nadam": "Nadam",
    "rmsprop": "RMSprop",
    "sgd": "SGD",
    "schedulefreeadamw": "ScheduleFreeAdamW",
}
ACTIVATIONS = ("Sigmoid", "Linear", "Relu")
LOSSES = ("binary_crossentropy", "mean_squared_error", "mean_absolute_error")

# Where a layer belongs that stands in the wrong list.
LAYER_HOMES = {
    "conv": "encoder_layers or decoder_layers",
    "pool": "encoder_layers",
    "upSample": "decoder_layers",
    "dense": "the dense_layers of a classifier",
    "batchNorm": "",
    "drop": "",
}
# Keys people look for that are called something else here, beyond a difference in spelling.
OTHER_NAMES = {"learning_rate": "optimizer", "lr": "optimizer", "patience": "early_stopping"}
PHASE_KEYS = ("dense_only_train_epochs", "full_train_epochs")
PROGRAMS = {"autoencoder": "autoencoder.py", "classifier": "classification.py"}

Kind = Literal["autoencoder", "classifier"]


# --- Words for people -----------------------------------------------------------------------


def shown(value: Any) -> str:
    """A value as it stands in the file, cut to fit one line."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else text[:59] + "…"


def listed(words: Iterable[str], conjunction: str = "or") -> str:
    """``a, b or c``."""
    *most, last = words
    return f"{', '.join(most)} {conjunction} {last}" if most else last


def nearest(word: str, choices: Iterable[str]) -> list[str]:
    """The choice most like `word`; failing that, all that contain it or are contained in it."""
    by_lower = {choice.lower(): choice for choice in choices}
    word = word.lower()
    near = difflib.get_close_matches(word, by_lower, n=1)
    if not near and word:
        near = [choice for choice in by_lower if word in choice or choice in word]
    return [by_lower[choice] for choice in near]


def did_you_mean(words: Iterable[str]) -> str:
    """A question that offers the words, if there are any."""
    quoted = [f'"{word}"' for word in words]
    return f"Did you mean {listed(quoted)}?" if quoted else ""


# --- Values ---------------------------------------------------------------------------------


def _refusal(required: str, remedy: str = "") -> PydanticCustomError:
    return PydanticCustomError("refused", "refused", {"required": required, "remedy": remedy})


def _says(required: str, remedy: Callable[[Any], str] = lambda _: "") -> WrapValidator:
    """One message of ours in place of whatever pydantic says about a refused value."""

    def validate(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise _refusal(required, remedy(value)) from None

    return WrapValidator(validate)


def _number_remedy(value: Any) -> str:
    if isinstance(value, bool):
        return "true and false are not numbers: write a number."
    if isinstance(value, str):
        return "Write a number, without quotes."
    return ""


def _whole_remedy(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_SEED:
        return f"Write {int(value)}, without the decimal point."
    return _number_remedy(value)


def _whole(low: int, high: int) -> Any:
    """The type of a whole number in [low, high]."""
    required = f"must be a whole number from {low} to {high}"
    return Annotated[int, Field(ge=low, le=high), _says(required, _whole_remedy)]


def _number(words: str, **bounds: float) -> Any:
    """The type of a finite number within `bounds`, which `words` describe."""
    field = Field(allow_inf_nan=False, **bounds)
    return Annotated[float, field, _says(f"must be a number {words}", _number_remedy)]


def _size(high: int) -> Any:
    """The type of ``[height, width]`` in pixels, each in [1, high]."""

    def remedy(value: Any) -> str:
        return f"Write [{value}, {value}]." if type(value) is int else ""

    side = Annotated[int, Field(ge=1, le=high)]
    required = f"must be [height, width], two whole numbers from 1 to {high}"
    return Annotated[tuple[side, side], _says(required, remedy)]


def _name(names: Iterable[str]) -> Any:
    """The type of one of `names`, accepted in any case and kept as spelt here."""
    names = tuple(names)
    by_lower = {name.lower(): name for name in names}

    def canonical(value: Any) -> str:
        text = value if isinstance(value, str) else ""
        if text.lower() in by_lower:
            return by_lower[text.lower()]
        quoted = [f'"{name}"' for name in names]
        raise _refusal(f"must be {listed(quoted)}", did_you_mean(nearest(text, names)))

    # JSON Schema has no "any case" but in a pattern; the list is what editors complete from.
    letters = (
        "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in name) for name in by_lower
    )
    schema = {
        "type": "string",
        "anyOf": [{"enum": list(names)}, {"pattern": f"^({'|'.join(letters)})$"}],
    }
    return Annotated[Literal[names], BeforeValidator(canonical), WithJsonSchema(schema)]


# --- Layers and schedules: lists whose first element says what they are -----------------------

Filters = _whole(1, MAX_FILTERS)
KernelSize = _size(MAX_KERNEL)
PoolSize = _size(MAX_POOL)
Units = _whole(1, MAX_UNITS)
DropRate = _number("from 0 up to but not including 1", ge=0, lt=1)
DecayFactor = _number("between 0 and 1, both excluded", gt=0, lt=1)
Epochs = _whole(1, MAX_EPOCHS)


class Conv(NamedTuple):
    """A convolution with stride 1 and padding "same": height and width stay."""

    kind: Literal["conv"]
    filters: Filters
    kernel_size: KernelSize

    EXAMPLE = ("conv", 32, (3, 3))


class Pool(NamedTuple):
    """Max pooling: height and width are divided, remainders dropped."""

    kind: Literal["pool"]
    size: PoolSize

    EXAMPLE = ("pool", (2, 2))


class UpSample(NamedTuple):
    """Every pixel repeated: height and width are multiplied."""

    kind: Literal["upSample"]
    size: PoolSize

    EXAMPLE = ("upSample", (2, 2))


class BatchNorm(NamedTuple):
    """Batch normalisation."""

    kind: Literal["batchNorm"]

    EXAMPLE = ("batchNorm",)


class Drop(NamedTuple):
    """Dropout of a share of the values during training."""

    kind: Literal["drop"]
    rate: DropRate

    EXAMPLE = ("drop", 0.25)


class Dense(NamedTuple):
    """A fully connected layer."""

    kind: Literal["dense"]
    units: Units

    EXAMPLE = ("dense", 64)


class Cosine(NamedTuple):
    """From the learning rate to 0 along half a cosine over the whole training."""

    kind: Literal["cosine"]

    EXAMPLE = ("cosine",)


class Exponential(NamedTuple):
    """The learning rate times `factor` after every epoch."""

    kind: Literal["exponential"]
    factor: DecayFactor

    EXAMPLE = ("exponential", 0.9)


class Step(NamedTuple):
    """The learning rate times `factor` after every `every_epochs` epochs."""

    kind: Literal["step"]
    every_epochs: Epochs
    factor: DecayFactor

    EXAMPLE = ("step", 5, 0.5)


def _tag(kind: str) -> str:
    """What pydantic calls a member of a union in error locations."""
    return f"<{kind}>"


def _one_of(*forms: type, homes: dict[str, str] | None = None) -> Any:
    """The type of a list that has one of `forms`, told by its first element.

    Args:
        *forms: NamedTuple classes whose first field is a literal `kind`.
        homes: Every kind there is, also those not allowed here, with where it belongs.
    """
    by_kind = {form.EXAMPLE[0]: form for form in forms}
    kinds = listed(f'"{kind}"' for kind in by_kind)
    homes = homes or dict.fromkeys(by_kind, "")

    def check_form(value: Any) -> Any:
        if not isinstance(value, tuple) or not value:
            raise _refusal(f"must be a list such as {shown(forms[0].EXAMPLE)}")
        kind = value[0]
        if not isinstance(kind, str) or kind not in by_kind:
            near = nearest(kind, homes) if isinstance(kind, str) else []
            remedy = did_you_mean(near)
            if near and near[0] not in by_kind:
                remedy = f'Move it: "{near[0]}" belongs in {homes[near[0]]}.'
            raise _refusal(f"must begin with {kinds}", remedy)
        form = by_kind[kind]
        if len(value) != len(form._fields):
            parts = ", ".join([f'"{kind}"', *form._fields[1:]])
            raise _refusal(f"must be [{parts}]", f"Write for example {shown(form.EXAMPLE)}.")
        return value

    union = Union[tuple(Annotated[form, Tag(_tag(kind))] for kind, form in by_kind.items())]  # noqa: UP007
    kind_of = Discriminator(lambda value: _tag(value[0]))
    return Annotated[union, kind_of, BeforeValidator(check_form)]


def _list_of(layer: Any, at_least: int) -> Any:
    """The type of a list of layers."""

    def check_length(value: Any) -> Any:
        if not isinstance(value, tuple) or not at_least <= len(value) <= MAX_LAYERS:
            raise _refusal(f"must be a list of {at_least} to {MAX_LAYERS} layers")
        return value

    # Not as min_length: pydantic counts the valid layers only and would complain twice.
    bounds = Field(json_schema_extra={"minItems": at_least, "maxItems": MAX_LAYERS})
    return Annotated[tuple[layer, ...], bounds, BeforeValidator(check_length)]


def _check_optimizer(value: Any) -> Any:
    if not isinstance(value, tuple) or len(value) not in (2, 3):
        raise _refusal(
            "must be [name, rate] or [name, rate, rate of full training]",
            'Write for example ["adam", 0.001].',
        )
    return value


LearningRate = _number(f"above 0, at most {MAX_LEARNING_RATE}", gt=0, le=MAX_LEARNING_RATE)


class Optimizer(NamedTuple):
    """An optimizer of Keras.

    Attributes:
        name: A key of `OPTIMIZERS`.
        learning_rate: For autoencoders, and for the dense-only phase of classifiers.
        full_learning_rate: For the full training of classifiers; None: the same rate.
    """

    name: _name(OPTIMIZERS)
    learning_rate: LearningRate
    full_learning_rate: LearningRate | None = None


FORM_FIELDS = {
    _tag(form.EXAMPLE[0]): form._fields
    for form in (Conv, Pool, UpSample, BatchNorm, Drop, Dense, Cosine, Exponential, Step)
} | {"optimizer": Optimizer._fields}


# --- Keys -----------------------------------------------------------------------------------

EncoderLayers = _list_of(_one_of(Conv, Pool, BatchNorm, Drop, homes=LAYER_HOMES), at_least=1)
OptimizerKey = Annotated[
    Optimizer,
    BeforeValidator(_check_optimizer),
    PlainSerializer(lambda optimizer: tuple(part for part in optimizer if part is not None)),
    Field(
        description="`[name, rate]` or `[name, rate, second rate]`: an optimizer of Keras by name, "
        "in any case, and its learning rate; a classifier uses the second rate in full training.",
        examples=[["adam", 0.001]],
    ),
]
BatchSizeKey = Annotated[
    _whole(1, MAX_BATCH_SIZE), Field(description="Images per training step.", examples=[32])
]
ValidationSplitKey = Annotated[
    _number(f"from 0 to {MAX_VALIDATION_SPLIT}", ge=0, le=MAX_VALIDATION_SPLIT),
    Field(description="Share of the training images kept aside to choose the best epoch."),
]
SeedKey = Annotated[
    _whole(0, MAX_SEED), Field(description="Start of all random numbers; same seed, same result.")
]
EarlyStoppingKey = Annotated[
    Epochs | None,
    _says(f"must be null or a whole number from 1 to {MAX_EPOCHS}", _whole_remedy),
    Field(
        description="Stop after so many epochs without improvement; null: never. "
        "The best weights are kept in any case."
    ),
]
ScheduleKey = Annotated[
    _one_of(Cosine, Exponential, Step) | None,
    Field(
        description='How the learning rate falls: null (not at all), `["cosine"]` to 0, '
        '`["exponential", factor]` every epoch, `["step", every_epochs, factor]`.'
    ),
]
L2Key = Annotated[
    _number("from 0 to 1", ge=0, le=1),
    Field(description="Weight of the squared weights in the loss (L2 regularisation)."),
]
MixedPrecisionKey = Annotated[
    Annotated[bool, _says("must be true or false")],
    Field(
        description="Whether to compute in bfloat16 while the weights stay float32: faster on "
        "GPUs and on CPUs that have it, about the same result."
    ),
]


class Augmentation(BaseModel):
    """Random changes to the training images, drawn anew in every epoch."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    rotation: Annotated[
        _number("of degrees from 0 to 180", ge=0, le=180),
        Field(description="Largest rotation either way, in degrees."),
    ] = 0.0
    shift: Annotated[
        _number("from 0 to 0.5", ge=0, le=0.5),
        Field(description="Largest shift either way, as a share of height and width."),
    ] = 0.0
    zoom: Annotated[
        _number("from 0 to 0.5", ge=0, le=0.5),
        Field(description="Largest change of size either way, as a share."),
    ] = 0.0


def _check_augmentation(value: Any) -> Any:
    if value is not None and not isinstance(value, dict):
        raise _refusal('must be null or an object such as {"rotation": 10, "shift": 0.1}')
    return value


AugmentationKey = Annotated[
    Augmentation | None,
    BeforeValidator(_check_augmentation),
    Field(
        description="Random changes to the training images: null, or an object with `rotation` "
        "(degrees, 0 to 180), `shift` and `zoom` (shares, 0 to 0.5)."
    ),
]


def _check_encoder(value: Any) -> Any:
    if value is not None and not (isinstance(value, str | tuple) and value):
        raise _refusal("must be the path of a saved model, a list of layers, or null")
    return value


ClassifierEncoder = Annotated[
    Annotated[str, Field(min_length=1), _says("must be a path"), Tag(_tag("path"))]
    | Annotated[EncoderLayers, Tag(_tag("layers"))],
    Discriminator(lambda value: _tag("path" if isinstance(value, str) else "layers")),
]


class _Config(BaseModel):
    """What both kinds of configuration share."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    kind: ClassVar[Kind]


class AutoencoderConfig(_Config):
    """The hyperparameters of an autoencoder, every default filled in."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {
                "properties": {"loss": {"const": "binary_crossentropy"}},
                "required": ["loss"],
            },
            "then": {"properties": {"activation_function": {"pattern": "^[sS]"}}},
        }
    )
    kind = "autoencoder"

    encoder_layers: Annotated[
        EncoderLayers,
        Field(
            description="Layers from the image to the encoding: "
            '`["conv", filters, [h, w]]`, `["pool", [h, w]]`, `["batchNorm"]`, `["drop", rate]`.',
            examples=[[["conv", 32, [3, 3]], ["pool", [2, 2]]]],
        ),
    ]
    decoder_layers: Annotated[
        _list_of(_one_of(Conv, UpSample, Pool, BatchNorm, Drop, homes=LAYER_HOMES), at_least=0),
        Field(
            description="Layers from the encoding back to the image: as in the encoder, with "
            '`["upSample", [h, w]]` instead of `pool` (which means `upSample` here). '
            "The convolution that makes the image is added to them.",
            examples=[[["upSample", [2, 2]], ["conv", 32, [3, 3]]]],
        ),
    ]
    optimizer: OptimizerKey
    batch_size: BatchSizeKey
    epochs: Annotated[
        Epochs, Field(description="Times the training images are gone through.", examples=[10])
    ]
    activation_function: Annotated[
        _name(ACTIVATIONS),
        Field(description="Activation of the output: Sigmoid, Linear or Relu, in any case."),
    ] = "Sigmoid"
    loss: Annotated[
        _name(LOSSES) | None,
        Field(
            description="What training minimises: binary_crossentropy (needs Sigmoid), "
            "mean_squared_error or mean_absolute_error; null: binary_crossentropy for Sigmoid, "
            "mean_squared_error otherwise.",
            validate_default=True,
        ),
    ] = None
    validation_split: ValidationSplitKey = 0.1
    seed: SeedKey = 0
    early_stopping: EarlyStoppingKey = None
    noise: Annotated[
        _number("from 0 to 1", ge=0, le=1),
        Field(
            description="Standard deviation of Gaussian noise on the inputs, whose pixels lie in "
            "[0, 1]; above 0 trains a denoising autoencoder."
        ),
    ] = 0.0
    augmentation: AugmentationKey = None
    learning_rate_schedule: ScheduleKey = None
    l2: L2Key = 0.0
    mixed_precision: MixedPrecisionKey = False

    @field_validator("decoder_layers")
    @classmethod
    def _pool_means_upsample(cls, layers: tuple) -> tuple:
        return tuple(UpSample("upSample", x.size) if isinstance(x, Pool) else x for x in layers)

    @field_validator("loss")
    @classmethod
    def _resolve_loss(cls, loss: str | None, info: ValidationInfo) -> str | None:
        activation = info.data.get("activation_function")  # None if that was refused
        if loss is None:
            return "binary_crossentropy" if activation == "Sigmoid" else "mean_squared_error"
        if loss == "binary_crossentropy" and activation in ("Linear", "Relu"):
            raise _refusal(
                f"must not be binary_crossentropy with the activation_function {activation}, "
                "whose output can leave [0, 1]",
                "Use Sigmoid, or mean_squared_error.",
            )
        return loss


class ClassifierConfig(_Config):
    """The hyperparameters of a classifier, every default filled in."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": {
                "properties": {
                    "dense_only_train_epochs": {"const": 0},
                    "full_train_epochs": {"const": 0},
                },
                "required": ["dense_only_train_epochs", "full_train_epochs"],
            }
        }
    )
    kind = "classifier"

    dense_layers: Annotated[
        _list_of(_one_of(Dense, Drop, BatchNorm, homes=LAYER_HOMES), at_least=0),
        Field(
            description="Layers between the encoder and the output, which is added to them: "
            '`["dense", units]`, `["drop", rate]`, `["batchNorm"]`.',
            examples=[[["dense", 64], ["dense", 32]]],
        ),
    ]
    encoder_layers: Annotated[
        ClassifierEncoder | None,
        BeforeValidator(_check_encoder),
        Field(
            description="Path of a saved model whose encoder is used, or a list of layers for an "
            "untrained encoder, or null when the command line gives the model."
        ),
    ] = None
    optimizer: OptimizerKey
    dense_only_train_epochs: Annotated[
        _whole(0, MAX_EPOCHS),
        Field(
            description="Epochs of the first phase, which trains the dense layers only.",
            examples=[5],
        ),
    ]
    full_train_epochs: Annotated[
        _whole(0, MAX_EPOCHS),
        Field(
            description="Epochs of the second phase, which trains everything.",
            examples=[10],
        ),
    ]
    batch_size: BatchSizeKey
    validation_split: ValidationSplitKey = 0.1
    seed: SeedKey = 0
    early_stopping: EarlyStoppingKey = None
    augmentation: AugmentationKey = None
    learning_rate_schedule: ScheduleKey = None
    l2: L2Key = 0.0
    mixed_precision: MixedPrecisionKey = False

    @field_validator("full_train_epochs")
    @classmethod
    def _some_phase_trains(cls, epochs: int, info: ValidationInfo) -> int:
        if epochs == 0 and info.data.get("dense_only_train_epochs") == 0:
            raise _refusal(
                "must not be 0 when dense_only_train_epochs is 0 as well",
                "Train for at least one epoch.",
            )
        return epochs


Config = AutoencoderConfig | ClassifierConfig
CONFIGS: dict[str, type[_Config]] = {
    config.kind: config for config in (AutoencoderConfig, ClassifierConfig)
}


# --- Validation -----------------------------------------------------------------------------


def _tuples(value: Any) -> Any:
    """Lists as tuples, all the way down: pydantic's strict mode takes nothing else for a tuple."""
    if isinstance(value, list | tuple):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value


def _path(location: Iterable[str | int]) -> str:
    """``encoder_layers[2].filters`` for ("encoder_layers", 2, "filters")."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part if part.isidentifier() else shown(part)}"
    return path.removeprefix(".")


def _field_names(location: tuple[str | int, ...]) -> Iterator[str | int]:
    """A location of pydantic's without tags, elements of a form by name instead of number."""
    previous = None
    for part in location:
        if isinstance(part, int) and previous in FORM_FIELDS:
            yield FORM_FIELDS[previous][part]
        elif not str(part).startswith("<"):
            yield part
        previous = part


class _Problem(NamedTuple):
    """A refused value: `path` in the document, and the rest as in `UserError`."""

    path: str
    required: str
    got: str
    remedy: str


def _unknown_key(config: type[_Config], error: ErrorDetails) -> _Problem:
    *parents, key = error["loc"]
    keys = Augmentation.model_fields if parents else config.model_fields
    near = [OTHER_NAMES[key.lower()]] if key.lower() in OTHER_NAMES else nearest(key, keys)
    remedy = did_you_mean(near) or f"Remove it; the keys are {', '.join(keys)}."
    return _Problem(
        _path(error["loc"]), "is not a key that exists here", shown(error["input"]), remedy
    )


def _problem(config: type[_Config], error: ErrorDetails) -> _Problem:
    """What one of pydantic's errors means to people."""
    if error["type"] == "extra_forbidden":
        return _unknown_key(config, error)
    path = _path(_field_names(error["loc"]))
    if error["type"] == "missing":
        example = shown(config.model_fields[path].examples[0])
        return _Problem(path, "is required", "nothing", f'Add for example "{path}": {example}.')
    refusal = error["ctx"]  # every other message is one of ours
    return _Problem(path, refusal["required"], shown(error["input"]), refusal["remedy"])


def _fail(where: object, required: str, got: object = None, remedy: str = "") -> NoReturn:
    raise ConfigurationError([UserError(where, required, got, remedy)])


def _check_kind(document: dict[str, Any], where: str, kind: Kind) -> None:
    """Refuses a configuration that is plainly meant for the other program."""
    (other,) = CONFIGS.keys() - {kind}
    own_keys, other_keys = set(CONFIGS[kind].model_fields), set(CONFIGS[other].model_fields)
    if document.keys() & (other_keys - own_keys) and not document.keys() & (own_keys - other_keys):
        _fail(
            where,
            f"must be a configuration for {PROGRAMS[kind]}",
            f"one for {PROGRAMS[other]}",
            f"Give it to {PROGRAMS[other]}.",
        )


def _object(value: Any, where: str) -> dict[str, Any]:
    """A JSON object without its ``$schema``."""
    if not isinstance(value, dict):
        _fail(where, "must be an object, {...}", shown(value))
    return {key: item for key, item in value.items() if key != "$schema"}


def _unwrap(document: Any, where: str) -> dict[str, Any]:
    """The hyperparameters without ``model_info`` around them."""
    keys = _object(document, where)
    if "model_info" not in keys:
        return keys
    inner = keys.pop("model_info")
    if keys:
        beside = ", ".join(map(shown, keys))
        _fail(where, "must have no keys beside model_info", beside, "Move them into model_info.")
    return _object(inner, f"{where}: model_info")


def validate_config(document: dict[str, Any], where: str, kind: Kind) -> Config:
    """Validates hyperparameters given as a dict.

    Args:
        document: As in the JSON file, bare or wrapped; lists may be tuples.
        where: What to call the document in errors, such as the name of its file.
        kind: What it must configure.

    Raises:
        ConfigurationError: With every problem, in the order of the document.
    """
    values = _tuples(_unwrap(document, where))
    _check_kind(values, where, kind)
    config = CONFIGS[kind]
    try:
        return config.model_validate(values)
    except ValidationError as invalid:
        order = {key: position for position, key in enumerate(values)}
        errors = sorted(invalid.errors(), key=lambda error: order.get(error["loc"][0], len(order)))
        problems = [_problem(config, error) for error in errors]
        raise ConfigurationError(
            [UserError(f"{where}: {path}", *words) for path, *words in problems]
        ) from None


def override(config: Config, **changes: int | None) -> Config:
    """A copy of `config` with the values given by flags, validated like those of a file.

    Args:
        config: Stays as it is.
        **changes: New values by key; None means that the flag was not given. `epochs` of a
            classifier are those of both phases.

    Raises:
        ConfigurationError: Naming the flag, such as ``--batch-size``.
    """
    values, flags = {}, {}
    for key, value in changes.items():
        both = isinstance(config, ClassifierConfig) and key == "epochs"
        for field in PHASE_KEYS if both else (key,):
            flags[field] = f"--{key.replace('_', '-')}"
            if value is not None:
                values[field] = value
    try:
        return type(config).model_validate(_tuples(config.model_dump(mode="json") | values))
    except ValidationError as invalid:
        problems = [_problem(type(config), error) for error in invalid.errors()]
        # A dict, because both phases of a classifier can have the same problem.
        words = dict.fromkeys((flags.get(path, path), *rest) for path, *rest in problems)
        raise ConfigurationError([UserError(*problem) for problem in words]) from None


# --- Files ----------------------------------------------------------------------------------


class _Object(dict):
    """A JSON object that remembers which of its keys were written more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        self.repeated = [key for key, n in Counter(key for key, _ in pairs).items() if n > 1]


def _repeated_keys(value: Any, location: tuple[str | int, ...] = ()) -> Iterator[str]:
    """The paths of all keys that are written more than once in one object."""
    if len(location) > MAX_NESTING:
        raise RecursionError
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, _Object):
        yield from (_path([*location, key]) for key in value.repeated)
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        yield from _repeated_keys(item, (*location, key))


def _parse_int(digits: str) -> int | float:
    # int() raises on thousands of digits; as infinity they are refused like any number too large.
    return int(digits) if len(digits) <= sys.float_info.max_10_exp else float(digits)


def _syntax_remedy(error: json.JSONDecodeError) -> str:
    """What most likely has to be done about a JSON syntax error."""
    before, after = error.doc[: error.pos].rstrip(), error.doc[error.pos :].lstrip()
    # Python 3.13 points at the superfluous comma, earlier versions at the bracket after it.
    if re.match(r",\s*[]}]", after) or (before.endswith(",") and after[:1] in ("]", "}")):
        return "Remove the comma before the closing bracket."
    if not after:
        return "The file ends too early: close all its brackets."
    if after.startswith("'"):
        return "Use double quotes."
    if after.startswith(("//", "/*", "#")):
        return "Remove the comment: JSON has none."
    if re.match("True|False|None", after):
        return "Write true, false or null."
    if error.msg.startswith("Invalid \\"):
        return 'Write backslashes twice, or "/" in paths.'
    if error.msg == "Extra data":
        return "Remove what follows the object."
    return "Look for a missing comma, quote or bracket here."


def parse_json(text: str, where: str) -> tuple[Any, list[UserError]]:
    """Reads JSON text.

    Args:
        text: Any JSON.
        where: What to call the text in errors, such as the name of its file.

    Returns:
        The document, and an error for every key that is written more than once in an object.

    Raises:
        ConfigurationError: It is no JSON.
    """
    if not text.strip():
        _fail(where, "must be a JSON object", "an empty file", "Copy one from configuration/.")
    try:
        document = json.loads(text, object_pairs_hook=_Object, parse_int=_parse_int)
        repeated = [
            UserError(f"{where}: {path}", "must be written once", "the key again", "Remove one.")
            for path in _repeated_keys(document)
        ]
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        escape = f"\\u{ord(error.object[error.start]):x}, which is half a character"
        _fail(where, "must be valid Unicode", escape, "Write the character itself.")
    except json.JSONDecodeError as error:
        place = f"{where}: line {error.lineno}, column {error.colno}"
        found = text[error.pos :].partition("\n")[0]
        got = shown(found) if found else "the end of the line"
        _fail(place, "must be JSON", got, _syntax_remedy(error))
    except RecursionError:
        _fail(where, f"must be nested at most {MAX_NESTING} deep", "more", "Remove brackets.")
    return document, repeated


def parse_config(text: str, where: str, kind: Kind) -> Config:
    """Reads a configuration from JSON text.

    Args:
        text: A JSON object, bare or wrapped in ``{"model_info": {...}}``.
        where: What to call the text in errors, such as the name of its file.
        kind: What it must configure.

    Raises:
        ConfigurationError: With every problem of the text.
    """
    document, repeated = parse_json(text, where)
    try:
        config = validate_config(document, where, kind)
    except ConfigurationError as invalid:
        raise ConfigurationError(repeated + invalid.problems) from None
    if repeated:
        raise ConfigurationError(repeated)
    return config


def load_config(path: str | Path, kind: Kind) -> Config:
    """Reads a configuration file, whatever its extension.

    Raises:
        ConfigurationError: With every problem of the file.
    """
    return parse_config(read_text(path), str(path), kind)


def read_text(path: str | Path) -> str:
    """Reads a file that people write JSON in.

    Raises:
        ConfigurationError: It cannot be read, or is no text in UTF-8.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)  # not all of it: it may be /dev/zero
    except FileNotFoundError:
        _fail(path, "must be a configuration file", "no file of that name", _similar_files(path))
    except IsADirectoryError:
        _fail(path, "must be a configuration file", "a directory", "Name a file in it.")
    except OSError as error:
        _fail(path, "must be a file that can be read", error.strerror)
    except ValueError as error:  # a null character in the name
        _fail(shown(str(path)), "must be the name of a file", error)
    if len(data) > MAX_FILE_BYTES:
        _fail(path, f"must be at most {MAX_FILE_BYTES} bytes", "more", "Name another file.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        _fail(path, "must be text in UTF-8", byte, "Save it as UTF-8.")


def _similar_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f"Check the path: there is no directory {path.parent}."
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:  # a directory that may be entered but not listed
        names = []
    near = [str(path.parent / name) for name in difflib.get_close_matches(path.name, names)]
    return f"Did you mean {listed(near)}?" if near else "Check the path."


def format_config(document: dict[str, Any]) -> str:
    """The JSON text of a configuration as people would write it: a line for each layer."""
    entries = []
    for key, value in document.items():
        text = json.dumps(value, ensure_ascii=False)
        if key.endswith("_layers") and isinstance(value, list | tuple) and value:
            lines = ",\n".join(f"    {json.dumps(layer)}" for layer in value)
            text = f"[\n{lines}\n  ]"
        entries.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def dump_config(config: Config, schema: str | None = None) -> str:
    """The complete configuration as JSON text: `parse_config` gives back an equal one.

    Args:
        config: What to write, every key of it, in the order of the schema.
        schema: Path or URL of the JSON Schema, to be named at the top for editors.
    """
    head = {} if schema is None else {"$schema": schema}
    return format_config(head | config.model_dump(mode="json"))


# --- JSON Schema ----------------------------------------------------------------------------


class _SchemaWithoutTitles(GenerateJsonSchema):
    """Leaves out the titles, which only repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of both kinds of file, bare or wrapped, for editors.

    It says what JSON Schema can say: whether a decoder undoes its encoder is for `check_shapes`.
    Source: https://json-schema.org/draft/2020-12
    """
    _, schema = models_json_schema(
        [(config, "validation") for config in CONFIGS.values()],
        schema_generator=_SchemaWithoutTitles,
    )
    definitions = schema["$defs"]
    schema_key = {"description": "The JSON Schema, for editors; ignored.", "type": "string"}
    for config in CONFIGS.values():
        properties = definitions[config.__name__]["properties"]
        definitions[config.__name__]["properties"] = {"$schema": schema_key} | properties
    definitions["Config"] = {
        "if": {"required": ["dense_layers"]},
        "then": {"$ref": "#/$defs/ClassifierConfig"},
        "else": {"$ref": "#/$defs/AutoencoderConfig"},
    }
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "Hyperparameters of an autoencoder or a classifier",
        "type": "object",
        "if": {"required": ["model_info"]},
        "then": {
            "properties": {"$schema": schema_key, "model_info": {"$ref": "#/$defs/Config"}},
            "additionalProperties": False,
        },
        "else": {"$ref": "#/$defs/Config"},
        "$defs": definitions,
    }

"""Values, layers and schedules that a configuration is made of, each with its own refusal."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, NamedTuple, Union

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    ValidationError,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from cae.errors import REFUSED, did_you_mean, listed, nearest, shown

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


# --- Values ---------------------------------------------------------------------------------


def refusal(required: str, remedy: str = "") -> PydanticCustomError:
    """The error that a validator raises, in words of ours."""
    return PydanticCustomError(REFUSED, REFUSED, {"required": required, "remedy": remedy})


def _says(required: str, remedy: Callable[[Any], str] = lambda _: "") -> WrapValidator:
    """One message of ours in place of whatever pydantic says about a refused value."""

    def validate(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise refusal(required, remedy(value)) from None

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


def whole_in(low: int, high: int) -> Any:
    """The type of a whole number in [low, high]."""
    required = f"must be a whole number from {low} to {high}"
    return Annotated[int, Field(ge=low, le=high), _says(required, _whole_remedy)]


def number_in(words: str, **bounds: float) -> Any:
    """The type of a finite number within `bounds`, which `words` describe."""
    field = Field(allow_inf_nan=False, **bounds)
    return Annotated[float, field, _says(f"must be a number {words}", _number_remedy)]


# A number of JSON that stays what it is, whole or not.
Number = Annotated[int | float, _says("must be a number", _number_remedy)]


def _size(high: int) -> Any:
    """The type of ``[height, width]`` in pixels, each in [1, high]."""

    def remedy(value: Any) -> str:
        return f"Write [{value}, {value}]." if type(value) is int else ""

    side = Annotated[int, Field(ge=1, le=high)]
    required = f"must be [height, width], two whole numbers from 1 to {high}"
    return Annotated[tuple[side, side], _says(required, remedy)]


def name_of(names: Iterable[str]) -> Any:
    """The type of one of `names`, accepted in any case and kept as spelt here."""
    names = tuple(names)
    by_lower = {name.lower(): name for name in names}

    def canonical(value: Any) -> str:
        text = value if isinstance(value, str) else ""
        if text.lower() in by_lower:
            return by_lower[text.lower()]
        quoted = [f'"{name}"' for name in names]
        raise refusal(f"must be {listed(quoted)}", did_you_mean(nearest(text, names)))

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

Filters = whole_in(1, MAX_FILTERS)
KernelSize = _size(MAX_KERNEL)
PoolSize = _size(MAX_POOL)
Units = whole_in(1, MAX_UNITS)
DropRate = number_in("from 0 up to but not including 1", ge=0, lt=1)
DecayFactor = number_in("between 0 and 1, both excluded", gt=0, lt=1)
Epochs = whole_in(1, MAX_EPOCHS)


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


def _tag(form: type) -> str:
    """What pydantic calls a list of this form in its error locations: see `find_problems`."""
    return f"<{form.EXAMPLE[0]}:{','.join(form._fields)}>"


def one_of_forms(*forms: type, homes: dict[str, str] | None = None) -> Any:
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
            raise refusal(f"must be a list such as {shown(forms[0].EXAMPLE)}")
        kind = value[0]
        if not isinstance(kind, str) or kind not in by_kind:
            near = nearest(kind, homes) if isinstance(kind, str) else []
            remedy = did_you_mean(near)
            if near and near[0] not in by_kind:
                remedy = f'Move it: "{near[0]}" belongs in {homes[near[0]]}.'
            raise refusal(f"must begin with {kinds}", remedy)
        form = by_kind[kind]
        if len(value) != len(form._fields):
            parts = ", ".join([f'"{kind}"', *form._fields[1:]])
            raise refusal(f"must be [{parts}]", f"Write for example {shown(form.EXAMPLE)}.")
        return value

    union = Union[tuple(Annotated[form, Tag(_tag(form))] for form in forms)]  # noqa: UP007
    kind_of = Discriminator(lambda value: _tag(by_kind[value[0]]))
    return Annotated[union, kind_of, BeforeValidator(check_form)]


def list_of(layer: Any, at_least: int) -> Any:
    """The type of a list of layers."""

    def check_length(value: Any) -> Any:
        if not isinstance(value, tuple) or not at_least <= len(value) <= MAX_LAYERS:
            raise refusal(f"must be a list of {at_least} to {MAX_LAYERS} layers")
        return value

    # Not as min_length: pydantic counts the valid layers only and would complain twice.
    bounds = Field(json_schema_extra={"minItems": at_least, "maxItems": MAX_LAYERS})
    return Annotated[tuple[layer, ...], bounds, BeforeValidator(check_length)]


def _check_optimizer(value: Any) -> Any:
    if not isinstance(value, tuple) or len(value) not in (2, 3):
        raise refusal(
            "must be [name, rate] or [name, rate, rate of full training]",
            'Write for example ["adam", 0.001].',
        )
    return value


LearningRate = number_in(f"above 0, at most {MAX_LEARNING_RATE}", gt=0, le=MAX_LEARNING_RATE)


class Optimizer(NamedTuple):
    """An optimizer of Keras.

    Attributes:
        name: A key of `OPTIMIZERS`.
        learning_rate: For autoencoders, and for the dense-only phase of classifiers.
        full_learning_rate: For the full training of classifiers; None: the same rate.
    """

    name: name_of(OPTIMIZERS)
    learning_rate: LearningRate
    full_learning_rate: LearningRate | None = None


# --- Keys -----------------------------------------------------------------------------------

EncoderLayers = list_of(one_of_forms(Conv, Pool, BatchNorm, Drop, homes=LAYER_HOMES), at_least=1)
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
    whole_in(1, MAX_BATCH_SIZE), Field(description="Images per training step.", examples=[32])
]
ValidationSplitKey = Annotated[
    number_in(f"from 0 to {MAX_VALIDATION_SPLIT}", ge=0, le=MAX_VALIDATION_SPLIT),
    Field(description="Share of the training images kept aside to choose the best epoch."),
]
SeedKey = Annotated[
    whole_in(0, MAX_SEED), Field(description="Start of all random numbers; same seed, same result.")
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
    one_of_forms(Cosine, Exponential, Step) | None,
    Field(
        description='How the learning rate falls: null (not at all), `["cosine"]` to 0, '
        '`["exponential", factor]` every epoch, `["step", every_epochs, factor]`.'
    ),
]
L2Key = Annotated[
    number_in("from 0 to 1", ge=0, le=1),
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
        number_in("of degrees from 0 to 180", ge=0, le=180),
        Field(description="Largest rotation either way, in degrees."),
    ] = 0.0
    shift: Annotated[
        number_in("from 0 to 0.5", ge=0, le=0.5),
        Field(description="Largest shift either way, as a share of height and width."),
    ] = 0.0
    zoom: Annotated[
        number_in("from 0 to 0.5", ge=0, le=0.5),
        Field(description="Largest change of size either way, as a share."),
    ] = 0.0


def _check_augmentation(value: Any) -> Any:
    if value is not None and not isinstance(value, dict):
        raise refusal('must be null or an object such as {"rotation": 10, "shift": 0.1}')
    return value


AugmentationKey = Annotated[
    Augmentation | None,
    BeforeValidator(_check_augmentation),
    Field(
        description="Random changes to the training images: null, or an object with `rotation` "
        "(degrees, 0 to 180), `shift` and `zoom` (shares, 0 to 0.5)."
    ),
]


def check_encoder_layers(value: Any) -> Any:
    if value is not None and not (isinstance(value, str | tuple) and value):
        raise refusal("must be the path of a saved model, a list of layers, or null")
    return value


ClassifierEncoder = Annotated[
    Annotated[str, Field(min_length=1), _says("must be a path"), Tag("<path>")]
    | Annotated[EncoderLayers, Tag("<layers>")],
    Discriminator(lambda value: "<path>" if isinstance(value, str) else "<layers>"),
]

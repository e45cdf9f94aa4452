"""Values, layers and schedules that a configuration is made of, each with its own refusal."""

from typing import Annotated, Any, Literal, NamedTuple, Union

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
)

from cae.config.values import (
    MAX_SEED,
    choice_type,
    integer_type,
    number_type,
    refusal,
    size_type,
    suggest_integer,
    worded,
)
from cae.errors import did_you_mean, listed, nearest, shown

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


# --- Layers and schedules: lists whose first element says what they are -----------------------

Filters = integer_type(1, MAX_FILTERS)
KernelSize = size_type(MAX_KERNEL)
PoolSize = size_type(MAX_POOL)
Units = integer_type(1, MAX_UNITS)
DropRate = number_type("from 0 up to but not including 1", ge=0, lt=1)
DecayFactor = number_type("between 0 and 1, both excluded", gt=0, lt=1)
Epochs = integer_type(1, MAX_EPOCHS)


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


def form_type(*forms: type, homes: dict[str, str] | None = None) -> Any:
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


def layers_type(layer: Any, at_least: int) -> Any:
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


LearningRate = number_type(f"above 0, at most {MAX_LEARNING_RATE}", gt=0, le=MAX_LEARNING_RATE)


class Optimizer(NamedTuple):
    """An optimizer of Keras.

    Attributes:
        name: A key of `OPTIMIZERS`.
        learning_rate: For autoencoders, and for the dense-only phase of classifiers.
        full_learning_rate: For the full training of classifiers; None: the same rate.
    """

    name: choice_type(OPTIMIZERS)
    learning_rate: LearningRate
    full_learning_rate: LearningRate | None = None


# --- Keys -----------------------------------------------------------------------------------

EncoderLayers = layers_type(form_type(Conv, Pool, BatchNorm, Drop, homes=LAYER_HOMES), at_least=1)
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
    integer_type(1, MAX_BATCH_SIZE), Field(description="Images per training step.", examples=[32])
]
ValidationSplitKey = Annotated[
    number_type(f"from 0 to {MAX_VALIDATION_SPLIT}", ge=0, le=MAX_VALIDATION_SPLIT),
    Field(description="Share of the training images kept aside to choose the best epoch."),
]
SeedKey = Annotated[
    integer_type(0, MAX_SEED),
    Field(description="Start of all random numbers; same seed, same result."),
]
EarlyStoppingKey = Annotated[
    Epochs | None,
    worded(f"must be null or a whole number from 1 to {MAX_EPOCHS}", suggest_integer),
    Field(
        description="Stop after so many epochs without improvement; null: never. "
        "The best weights are kept in any case."
    ),
]
ScheduleKey = Annotated[
    form_type(Cosine, Exponential, Step) | None,
    Field(
        description='How the learning rate falls: null (not at all), `["cosine"]` to 0, '
        '`["exponential", factor]` every epoch, `["step", every_epochs, factor]`.'
    ),
]
L2Key = Annotated[
    number_type("from 0 to 1", ge=0, le=1),
    Field(description="Weight of the squared weights in the loss (L2 regularisation)."),
]
MixedPrecisionKey = Annotated[
    Annotated[bool, worded("must be true or false")],
    Field(
        description="Whether to compute in bfloat16 while the weights stay float32: faster on "
        "GPUs and on CPUs that have it, about the same result."
    ),
]


class Augmentation(BaseModel):
    """Random changes to the training images, drawn anew in every epoch."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    rotation: Annotated[
        number_type("of degrees from 0 to 180", ge=0, le=180),
        Field(description="Largest rotation either way, in degrees."),
    ] = 0.0
    shift: Annotated[
        number_type("from 0 to 0.5", ge=0, le=0.5),
        Field(description="Largest shift either way, as a share of height and width."),
    ] = 0.0
    zoom: Annotated[
        number_type("from 0 to 0.5", ge=0, le=0.5),
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


def _check_classifier_encoder(value: Any) -> Any:
    if value is not None and not (isinstance(value, str | tuple) and value):
        raise refusal("must be the path of a saved model, a list of layers, or null")
    return value


# A path, or layers; both are told apart before either is checked.
_Encoder = Annotated[
    Annotated[str, Field(min_length=1), worded("must be a path"), Tag("<path>")]
    | Annotated[EncoderLayers, Tag("<layers>")],
    Discriminator(lambda value: "<path>" if isinstance(value, str) else "<layers>"),
]
ClassifierEncoderKey = Annotated[
    _Encoder | None,
    BeforeValidator(_check_classifier_encoder),
    Field(
        description="Path of a saved model whose encoder is used, or a list of layers for an "
        "untrained encoder, or null when the command line gives the model."
    ),
]

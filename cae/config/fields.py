"""Layers, schedules and other values of a configuration."""

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

from cae.config.choices import MAX_BATCH_SIZE, MAX_EPOCHS, MAX_SEED
from cae.config.values import (
    choice_type,
    integer_type,
    number_type,
    refusal,
    size_type,
    suggest_integer,
    worded,
)
from cae.errors import did_you_mean, listed, nearest, shown

# Upper bounds, so that a typing error (3200 for 320) does not exhaust the memory.
MAX_FILTERS = 4096
MAX_KERNEL = 63  # pixels
MAX_POOL = 32  # pixels
MAX_UNITS = 65536
MAX_LAYERS = 100
MAX_LEARNING_RATE = 10
MAX_VALIDATION_SPLIT = 0.9

# The optimizers of Keras that require only a learning rate: name -> class in `keras.optimizers`.
# By class, because `keras.optimizers.get("lamb")` fails in Keras 3.15.
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

# Kind of layer -> where it belongs, for errors about layers in the wrong list.
LAYER_HOMES = {
    "conv": "encoder_layers or decoder_layers",
    "pool": "encoder_layers",
    "upSample": "decoder_layers",
    "dense": "the dense_layers of a classifier",
    "batchNorm": "",
    "drop": "",
}


# --- Layers and schedules: lists whose first element names their kind -----------------------

Filters = integer_type(1, MAX_FILTERS)
KernelSize = size_type(MAX_KERNEL)
PoolSize = size_type(MAX_POOL)
Units = integer_type(1, MAX_UNITS)
DropRate = number_type("from 0 up to but not including 1", ge=0, lt=1)
DecayFactor = number_type("between 0 and 1, both excluded", gt=0, lt=1)
Epochs = integer_type(1, MAX_EPOCHS)


class Conv(NamedTuple):
    """Convolution with stride 1 and padding "same", which keeps height and width."""

    kind: Literal["conv"]
    filters: Filters
    kernel_size: KernelSize

    EXAMPLE = ("conv", 32, (3, 3))


class Pool(NamedTuple):
    """Max pooling: divides height and width. Remainders are dropped, or rounded up (see below)."""

    kind: Literal["pool"]
    size: PoolSize

    EXAMPLE = ("pool", (2, 2))


class UpSample(NamedTuple):
    """Nearest-neighbour upsampling: multiplies height and width."""

    kind: Literal["upSample"]
    size: PoolSize

    EXAMPLE = ("upSample", (2, 2))


class BatchNorm(NamedTuple):
    """Batch normalisation."""

    kind: Literal["batchNorm"]

    EXAMPLE = ("batchNorm",)


class Drop(NamedTuple):
    """Dropout: sets this share of the values to 0 during training."""

    kind: Literal["drop"]
    rate: DropRate

    EXAMPLE = ("drop", 0.25)


class Dense(NamedTuple):
    """Fully connected layer."""

    kind: Literal["dense"]
    units: Units

    EXAMPLE = ("dense", 64)


class Cosine(NamedTuple):
    """The learning rate falls to 0 along half a cosine over the whole training."""

    kind: Literal["cosine"]

    EXAMPLE = ("cosine",)


class Exponential(NamedTuple):
    """The learning rate is multiplied by `factor` after every epoch."""

    kind: Literal["exponential"]
    factor: DecayFactor

    EXAMPLE = ("exponential", 0.9)


class Step(NamedTuple):
    """The learning rate is multiplied by `factor` after every `every_epochs` epochs."""

    kind: Literal["step"]
    every_epochs: Epochs
    factor: DecayFactor

    EXAMPLE = ("step", 5, 0.5)


def _tag(form: type) -> str:
    """The name of a form in the locations of pydantic's errors, as `find_problems` reads it."""
    return f"<{form.EXAMPLE[0]}:{','.join(form._fields)}>"


def form_type(*forms: type, homes: dict[str, str] | None = None) -> Any:
    """The type of a list in one of several forms; its first element tells which.

    Args:
        *forms: NamedTuple classes whose first field is a literal `kind`.
        homes: Every kind, also those that are not allowed here -> where it belongs.
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

    # Not min_length: pydantic counts only valid layers and would report a second problem.
    bounds = Field(json_schema_extra={"minItems": at_least, "maxItems": MAX_LAYERS})
    return Annotated[tuple[layer, ...], bounds, BeforeValidator(check_length)]


def _check_optimizer(value: Any) -> Any:
    if not isinstance(value, tuple) or len(value) not in (2, 3):
        raise refusal(
            "must be [name, rate] or [name, rate, second rate]",
            'Write for example ["adam", 0.001].',
        )
    return value


LearningRate = number_type(f"above 0, at most {MAX_LEARNING_RATE}", gt=0, le=MAX_LEARNING_RATE)


class Optimizer(NamedTuple):
    """An optimizer of Keras.

    Attributes:
        name: A key of `OPTIMIZERS`.
        learning_rate: For autoencoders, and for the first phase of classifiers.
        full_learning_rate: For the second phase of classifiers; None: the same rate.
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
        description="`[name, rate]` or `[name, rate, second rate]`: an optimizer of Keras, in any "
        "case, and its learning rate; a classifier uses the second rate in its second phase.",
        examples=[["adam", 0.001]],
    ),
]
BatchSizeKey = Annotated[
    integer_type(1, MAX_BATCH_SIZE), Field(description="Images per training step.", examples=[32])
]
ValidationSplitKey = Annotated[
    number_type(f"from 0 to {MAX_VALIDATION_SPLIT}", ge=0, le=MAX_VALIDATION_SPLIT),
    Field(description="Share of the training images held out to choose the best epoch."),
]
SeedKey = Annotated[
    integer_type(0, MAX_SEED),
    Field(description="Seed of all random numbers; the same seed gives the same result."),
]
EarlyStoppingKey = Annotated[
    Epochs | None,
    worded(f"must be null or a whole number from 1 to {MAX_EPOCHS}", suggest_integer),
    Field(
        description="Stop after this many epochs without improvement; null: never. "
        "The best weights are kept in any case."
    ),
]
ScheduleKey = Annotated[
    form_type(Cosine, Exponential, Step) | None,
    Field(
        description='How the learning rate falls: `["cosine"]`, `["exponential", factor]` or '
        '`["step", every_epochs, factor]`; null: it is constant.'
    ),
]
L2Key = Annotated[
    number_type("from 0 to 1", ge=0, le=1),
    Field(description="Factor of L2 regularisation: of the sum of squared weights in the loss."),
]
MixedPrecisionKey = Annotated[
    Annotated[bool, worded("must be true or false")],
    Field(
        description="Compute in bfloat16 with weights in float32: faster on GPUs and on CPUs that "
        "support it, with similar results. Other CPUs compute in float32."
    ),
]


class Augmentation(BaseModel):
    """Random changes of the training images, drawn anew in every epoch."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    rotation: Annotated[
        number_type("of degrees from 0 to 180", ge=0, le=180),
        Field(description="Largest rotation in either direction, in degrees."),
    ] = 0.0
    shift: Annotated[
        number_type("from 0 to 0.5", ge=0, le=0.5),
        Field(description="Largest shift in either direction, as a share of height and width."),
    ] = 0.0
    zoom: Annotated[
        number_type("from 0 to 0.5", ge=0, le=0.5),
        Field(description="Largest change of size in either direction, as a share."),
    ] = 0.0


def _check_augmentation(value: Any) -> Any:
    if value is not None and not isinstance(value, dict):
        raise refusal('must be null or an object such as {"rotation": 10, "shift": 0.1}')
    return value


AugmentationKey = Annotated[
    Augmentation | None,
    BeforeValidator(_check_augmentation),
    Field(
        description="Random changes of the training images: an object with `rotation`, `shift` "
        "and `zoom`; null: none."
    ),
]


def _check_classifier_encoder(value: Any) -> Any:
    if value is not None and not (isinstance(value, str | tuple) and value):
        raise refusal("must be the path of a saved model, a list of layers, or null")
    return value


# A path or layers; the type of the value tells which is checked.
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
        "untrained encoder; null: the flag `-model` gives the model."
    ),
]

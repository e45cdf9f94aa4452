"""Layers, schedules and other values of a configuration."""

from typing import Annotated, Any, Literal, NamedTuple, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    ValidationInfo,
    field_validator,
)

from cae.config.choices import MAX_BATCH_SIZE, MAX_EPOCHS, MAX_SEED
from cae.config.values import (
    check,
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

# The optimizers of Keras that require only a learning rate: name -> class in `keras.optimizers`.
# By class, because `keras.optimizers.get("lamb")` fails in Keras 3.15.
OPTIMIZERS = {
    name.lower(): name
    for name in (
        *("Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lamb", "Lion"),
        *("Muon", "Nadam", "RMSprop", "SGD", "ScheduleFreeAdamW"),
    )
}
ACTIVATIONS = ("Sigmoid", "Linear", "Relu")
GRAPHS = ("encodings", "pixels")
ALIGNMENTS = ("auto", "always", "never")
LOSSES = ("binary_crossentropy", "mean_squared_error", "mean_absolute_error")

# Kind of layer -> where it belongs, for errors about layers in the wrong list.
LAYER_HOMES = {
    "conv": "encoder_layers or decoder_layers",
    "pool": "encoder_layers",
    "upSample": "decoder_layers",
    "convTranspose": "decoder_layers",
    "dense": "the dense_layers of a classifier, or last in encoder_layers",
    "batchNorm": "",
    "drop": "",
}

BatchSize = integer_type(1, MAX_BATCH_SIZE)
Epochs = integer_type(1, MAX_EPOCHS)
PhaseEpochs = integer_type(0, MAX_EPOCHS)
Seed = integer_type(0, MAX_SEED)
Filters = integer_type(1, MAX_FILTERS)
KernelSize = size_type(MAX_KERNEL)
PoolSize = size_type(MAX_POOL)
Share = number_type("from 0 to 1", ge=0, le=1)
DecayFactor = number_type("between 0 and 1, both excluded", gt=0, lt=1)
LearningRate = number_type(f"above 0, at most {MAX_LEARNING_RATE}", gt=0, le=MAX_LEARNING_RATE)


# --- Layers and schedules: lists whose first element names their kind -----------------------


class Conv(NamedTuple):
    """Convolution with stride 1 and padding "same", which keeps height and width."""

    kind: Literal["conv"]
    filters: Filters
    kernel_size: KernelSize
    EXAMPLE = ("conv", 32, (3, 3))


class StridedConv(NamedTuple):
    """Convolution that divides height and width by its strides, rounded up."""

    kind: Literal["conv"]
    filters: Filters
    kernel_size: KernelSize
    strides: PoolSize
    EXAMPLE = ("conv", 32, (3, 3), (2, 2))


class ConvTranspose(NamedTuple):
    """Transposed convolution: multiplies height and width by its strides."""

    kind: Literal["convTranspose"]
    filters: Filters
    kernel_size: KernelSize
    strides: PoolSize
    EXAMPLE = ("convTranspose", 32, (3, 3), (2, 2))


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
    rate: number_type("from 0 up to but not including 1", ge=0, lt=1)
    EXAMPLE = ("drop", 0.25)


class Dense(NamedTuple):
    """Fully connected layer. The last of `encoder_layers` can be one, a bottleneck: it has no
    activation, and the decoder begins by itself with its inverse."""

    kind: Literal["dense"]
    units: integer_type(1, MAX_UNITS)
    EXAMPLE = ("dense", 64)


class Cosine(NamedTuple):
    """The learning rate falls from epoch to epoch, along half a cosine that ends at 0."""

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
    """The type of a list in one of several forms; its first element and its length tell which.

    Args:
        *forms: NamedTuple classes whose first field is a literal `kind`.
        homes: Every kind, also those that are not allowed here -> where it belongs.
    """
    by_kind: dict[str, dict[int, type]] = {}  # then by length
    for form in forms:
        by_kind.setdefault(form.EXAMPLE[0], {})[len(form._fields)] = form
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
        if len(value) not in by_kind[kind]:
            allowed = by_kind[kind].values()
            parts = (", ".join([f'"{kind}"', *form._fields[1:]]) for form in allowed)
            example = shown(next(iter(allowed)).EXAMPLE)
            raise refusal(
                f"must be {listed(f'[{part}]' for part in parts)}", f"Write for example {example}."
            )
        return value

    union = Union[tuple(Annotated[form, Tag(_tag(form))] for form in forms)]  # noqa: UP007
    kind_of = Discriminator(lambda value: _tag(by_kind[value[0]][len(value)]))
    return Annotated[union, kind_of, BeforeValidator(check_form)]


def layers_type(*forms: type, at_least: int = 0) -> Any:
    """The type of a list of layers in one of several forms."""
    # Not min_length: pydantic counts only valid layers and would report a second problem.
    return Annotated[
        tuple[form_type(*forms, homes=LAYER_HOMES), ...],
        Field(json_schema_extra={"minItems": at_least, "maxItems": MAX_LAYERS}),
        check(
            lambda value: isinstance(value, tuple) and at_least <= len(value) <= MAX_LAYERS,
            f"must be a list of {at_least} to {MAX_LAYERS} layers",
        ),
    ]


def _check_bottleneck(layers: tuple) -> tuple:
    if any(isinstance(layer, Dense) for layer in layers[:-1]):
        raise refusal('must have no "dense" before its last layer', "Move it to the end.")
    return layers


class Optimizer(NamedTuple):
    """An optimizer of Keras."""

    name: choice_type(OPTIMIZERS)
    learning_rate: LearningRate  # of autoencoders, and of the first phase of classifiers
    full_learning_rate: LearningRate | None = None  # of the second phase; None: the same


# --- Values of keys -------------------------------------------------------------------------

EncoderLayers = Annotated[
    layers_type(Conv, StridedConv, Pool, BatchNorm, Drop, Dense, at_least=1),
    AfterValidator(_check_bottleneck),
]
DecoderLayers = layers_type(Conv, ConvTranspose, UpSample, Pool, BatchNorm, Drop)
DenseLayers = layers_type(Dense, Drop, BatchNorm)
Schedule = form_type(Cosine, Exponential, Step)
OptimizerList = Annotated[
    Optimizer,
    check(
        lambda value: isinstance(value, tuple) and len(value) in (2, 3),
        "must be [name, rate] or [name, rate, second rate]",
        'Write for example ["adam", 0.001].',
    ),
    PlainSerializer(lambda optimizer: tuple(part for part in optimizer if part is not None)),
]
Patience = Annotated[
    Epochs | None,
    worded(f"must be null or a whole number from 1 to {MAX_EPOCHS}", suggest_integer),
]
# A path or layers; the type of the value tells which is checked.
_Encoder = Annotated[
    Annotated[str, Field(min_length=1), Tag("<path>")] | Annotated[EncoderLayers, Tag("<layers>")],
    Discriminator(lambda value: "<path>" if isinstance(value, str) else "<layers>"),
]
ClassifierEncoder = Annotated[
    _Encoder | None,
    check(
        lambda value: value is None or (isinstance(value, str | tuple) and bool(value)),
        "must be the path of a saved model, a list of layers, or null",
    ),
]


class Keys(BaseModel):
    """The base of every object in a JSON file; the texts below its keys describe them."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )


class Augmentation(Keys):
    """Random changes of images, drawn anew for every image in every epoch."""

    rotation: number_type("of degrees from 0 to 180", ge=0, le=180) = 0.0
    """Largest rotation in either direction, in degrees."""

    shear: number_type("of degrees from 0 to 60", ge=0, le=60) = 0.0
    """Largest slant of the vertical lines in either direction, in degrees."""

    shift: number_type("from 0 to 0.5", ge=0, le=0.5) = 0.0
    """Largest shift in either direction, as a share of height and width."""

    zoom: number_type("from 0 to 0.5", ge=0, le=0.5) = 0.0
    """Largest change of size in either direction, as a share."""

    noise: Share = 0.0
    """Standard deviation of Gaussian noise added to the pixels, which are in [0, 1]."""

    cutout: Share = 0.0
    """Side of a square set to 0 about a random pixel, as a share of the image's shorter side
    (DeVries & Taylor 2017, "Improved regularization of convolutional neural networks with
    cutout")."""

    mask: Share = 0.0
    """Share of the patches of a grid of 7 × 7 set to 0, to the nearest whole patch (He et al. 2022,
    "Masked autoencoders are scalable vision learners")."""

    def __str__(self) -> str:
        amounts = (f"{key}\N{NO-BREAK SPACE}{value:g}" for key, value in self if value)
        return ", ".join(amounts) or "no change"


def object_or_null(kind: type[Keys], example: dict[str, Any]) -> Any:
    """The type of a key that holds an object or null."""
    return Annotated[
        kind | None,
        check(
            lambda value: value is None or isinstance(value, dict | kind),
            f"must be null or an object such as {shown(example)}",
        ),
    ]


AugmentationOrNull = object_or_null(Augmentation, {"rotation": 10, "shift": 0.1})


# --- Images without labels -----------------------------------------------------------------


class LabelSpreading(Keys):
    """Pseudo-labels for unlabelled images, along a graph of near neighbours.

    Zhou et al. 2004, "Learning with local and global consistency"; spread again as by Iscen et al.
    2019, "Label propagation for deep semi-supervised learning".
    """

    on: choice_type(GRAPHS) = "encodings"
    """What makes images neighbours: the `encodings` of the pretrained encoder, or their
    `pixels`."""

    neighbours: integer_type(1, 100) = 10
    """Nearest neighbours of each image in the graph, by the cosine."""

    alpha: number_type("between 0 and 1, both excluded", gt=0, lt=1) = 0.99
    """How far labels travel, over at most 50 edges of the graph: the share of its neighbours in the
    label of an image."""

    share: number_type("above 0, at most 1", gt=0, le=1) = 0.8
    """Share of the images of each class, the most confident, that keep their label; the others are
    left to `pseudo_labels`."""

    refresh: Epochs | None = None
    """Epochs after which the labels are spread again, by the encodings before training together
    with those of the classifier so far; null: they are spread once."""

    last_share: number_type("above 0, at most 1", gt=0, le=1) | None = None
    """With `refresh`: the share that keeps its label after the last time, towards which `share`
    changes evenly; null: it stays."""

    align: choice_type(ALIGNMENTS) = "auto"
    """When to rescale the spread labels so that classes are as frequent as among the given ones:
    `auto` leaves it out if over 15 % of the images would have to change class, because the
    unlabelled images then seem to have other shares."""

    @field_validator("last_share")
    @classmethod
    def _shares_change_with_refresh(
        cls, last_share: float | None, info: ValidationInfo
    ) -> float | None:
        if last_share is not None and info.data.get("refresh", True) is None:
            raise refusal("must be null when refresh is null", 'Write for example "refresh": 2.')
        return last_share


class PseudoLabels(Keys):
    """Pseudo-labels for unlabelled images in every step, by a teacher where it is confident.

    Sohn et al. 2020, "FixMatch"; Berthelot et al. 2020, "ReMixMatch".
    """

    threshold: number_type("from 0 up to but not including 1", ge=0, lt=1) = 0.9
    """Probability above which a prediction of the teacher counts."""

    temperature: number_type("from 0.01 to 1", ge=0.01, le=1) = 1.0
    """Below 1, sharpens the predictions that count: each to the power of 1 / temperature, divided
    by their sum (Berthelot et al. 2019, "MixMatch")."""

    align: Annotated[bool, worded("must be true or false")] = True
    """Rescale the teacher's predictions so that classes are as frequent as among the labels, or
    among the spread labels if these were not rescaled."""


class Unlabelled(Keys):
    """How a classifier learns from images without labels, in steps that hold both kinds."""

    batch_size: BatchSize = 112
    """Unlabelled images per step, in addition to `batch_size` labelled ones; an epoch is a pass
    over the unlabelled images."""

    weight: number_type("from 0 to 100", ge=0, le=100) = 1.0
    """Weight of the unlabelled images' loss."""

    ema: number_type("from 0 up to but not including 1", ge=0, lt=1) = 0.99
    """The teacher, which is the model that is kept, is a moving average of the trained weights:
    its share in every step (Tarvainen & Valpola 2017, "Mean teachers are better role models")."""

    weak: Augmentation = Augmentation(rotation=5, shift=0.07, zoom=0.05)
    """Changes of the images that the teacher sees."""

    strong: Augmentation = Augmentation(
        rotation=20, shear=15, shift=0.12, zoom=0.2, noise=0.1, cutout=0.35
    )
    """Changes of the images that are trained on."""

    label_spreading: object_or_null(LabelSpreading, {"on": "encodings"}) = None
    """Pseudo-labels by label spreading: an object with `on`, `neighbours`, `alpha`, `share`,
    `refresh`, `last_share` and `align`; null: none."""

    pseudo_labels: object_or_null(PseudoLabels, {"threshold": 0.9}) = Field(
        None, validate_default=True
    )
    """Pseudo-labels by the teacher: an object with `threshold`, `temperature` and
    `align`; null: none."""

    @field_validator("pseudo_labels")
    @classmethod
    def _some_source_labels(
        cls, rule: PseudoLabels | None, info: ValidationInfo
    ) -> PseudoLabels | None:
        if rule is None and info.data.get("label_spreading", True) is None:
            raise refusal(
                "must not be null when label_spreading is null as well",
                'Write for example "pseudo_labels": {"threshold": 0.9}.',
            )
        return rule


UnlabelledOrNull = object_or_null(Unlabelled, {"label_spreading": {}, "pseudo_labels": {}})

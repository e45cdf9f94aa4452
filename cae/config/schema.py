"""The schema of configurations, the JSON files of hyperparameters.

The keys and layers are those of the original Python dicts, as JSON::

    {
      "encoder_layers": [["conv", 32, [3, 3]], ["pool", [2, 2]]],
      "decoder_layers": [["upSample", [2, 2]], ["conv", 32, [3, 3]]],
      "optimizer": ["adam", 0.001],
      "batch_size": 32,
      "epochs": 10,
      "activation_function": "Sigmoid"
    }

bare or wrapped in ``{"model_info": {...}}``. Nothing here needs Keras, so a wrong file is refused
at once.
"""

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from typing_extensions import override

from cae.config.choices import ALL, BEST_EPOCH_BY, CLASS_WEIGHTS, MAX_EPOCHS, MAX_STEPS
from cae.config.fields import (
    ACTIVATIONS,
    LOSSES,
    Augmentation,
    AugmentationOrNull,
    BatchSize,
    ClassifierEncoder,
    DecoderLayers,
    DenseLayers,
    EncoderLayers,
    Epochs,
    Keys,
    OptimizerList,
    Patience,
    PhaseEpochs,
    Pool,
    Schedule,
    Seed,
    Share,
    UnlabelledOrNull,
    UpSample,
)
from cae.config.values import (
    choice_type,
    integer_type,
    number_type,
    refusal,
    suggest_integer,
    worded,
)
from cae.errors import UserError

# Keys that people look for under a different name, beyond misspellings.
OTHER_NAMES = {"learning_rate": "optimizer", "lr": "optimizer", "patience": "early_stopping"}
# Keys that nothing in training depends on, and what they hold.
UNUSED = {
    "$schema": "The JSON Schema, for editors; otherwise ignored.",
    "description": "What --list shows: what it is, its cost and its accuracy; otherwise ignored.",
}
PHASE_KEYS = ("dense_only_train_epochs", "full_train_epochs")

Kind = Literal["autoencoder", "classifier"]

Labels = Annotated[
    Annotated[int, Field(ge=1)] | Literal[ALL] | None,
    worded('must be a whole number from 1, or "all"', suggest_integer),
]
Half = Annotated[dict[str, Any] | None, worded("must be an object, {...}")]


class Config(Keys):
    """The hyperparameters that both kinds of models have."""

    kind: ClassVar[Kind]
    epochs_key: ClassVar[str]  # of the only phase, or of the second one

    optimizer: OptimizerList = Field(examples=[["adam", 0.001]])
    """`[name, rate]` or `[name, rate, second rate]`: an optimizer of Keras, in any case, and its
    learning rate; a classifier uses the second rate in its second phase."""

    batch_size: BatchSize = Field(examples=[32])
    """Images per training step."""

    min_steps: integer_type(0, MAX_STEPS) = 0
    """Minimum number of training steps. With few images, epochs are added (for a classifier in its
    second phase) and `refresh` is scaled accordingly. The flag `--epochs` sets it to 0."""

    validation_split: number_type("from 0 to 0.9", ge=0, le=0.9) = 0.1
    """Share of the training images held out to choose the best epoch."""

    seed: Seed = 0
    """Seed of all random numbers; the same seed gives the same result."""

    early_stopping: Patience = None
    """Stop after this many epochs without improvement; null: never. The best weights are kept in
    any case."""

    augmentation: AugmentationOrNull = None
    """Random changes of the training images: an object with `rotation`, `shear`, `shift`, `zoom`,
    `noise`, `cutout` and `mask`; null: none."""

    learning_rate_schedule: Schedule | None = None
    """How the learning rate falls: `["cosine"]`, `["exponential", factor]` or
    `["step", every_epochs, factor]`; null: it is constant."""

    l2: Share = 0.0
    """Factor of L2 regularisation: of the sum of squared weights in the loss."""

    mixed_precision: Annotated[bool, worded("must be true or false")] = False
    """Compute in bfloat16 with weights in float32: faster on GPUs and on CPUs that support it, with
    similar results. Other CPUs compute in float32."""

    @property
    def views(self) -> dict[str, tuple[Augmentation, ...]]:
        """What training makes of an image: the name of each view -> the changes in turn."""
        return {"augmented": (self.augmentation,)} if self.augmentation else {}

    def count_steps(self, num_training: int, num_unlabelled: int = 0) -> int:
        """The steps of an epoch, of a classifier of its second phase; at least 1."""
        return max(1, math.ceil(num_training / self.batch_size))

    def lengthened(self, steps_per_epoch: int) -> Self:
        """The configuration with as many epochs as take `min_steps`."""
        epochs = getattr(self, self.epochs_key)
        needed = min(MAX_EPOCHS, math.ceil(self.min_steps / steps_per_epoch))
        if epochs == 0 or needed <= epochs:
            return self
        return self.model_copy(update={self.epochs_key: needed})


class AutoencoderConfig(Config):
    """The hyperparameters of an autoencoder, with all defaults."""

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
    epochs_key = "epochs"

    encoder_layers: EncoderLayers = Field(examples=[[["conv", 32, [3, 3]], ["pool", [2, 2]]]])
    """Layers from the image to the encoding: `["conv", filters, [h, w]]`, with strides
    `["conv", filters, [h, w], [h, w]]`, `["pool", [h, w]]`, `["batchNorm"]`, `["drop", rate]`, and
    as the last `["dense", units]`."""

    decoder_layers: DecoderLayers = Field(examples=[[["upSample", [2, 2]], ["conv", 32, [3, 3]]]])
    """Layers from the encoding back to the image: those of the encoder, with `["upSample", [h, w]]`
    instead of `pool` (which means `upSample` here), and instead of a convolution with strides
    `["convTranspose", filters, [h, w], [h, w]]`. The output convolution is added."""

    epochs: Epochs = Field(examples=[10])
    """Passes over the training images."""

    activation_function: choice_type(ACTIVATIONS) = "Sigmoid"
    """Activation of the output: Sigmoid, Linear or Relu, in any case."""

    loss: choice_type(LOSSES) | None = Field(None, validate_default=True)
    """Loss to minimise; binary_crossentropy requires Sigmoid. null: binary_crossentropy for
    Sigmoid, mean_squared_error otherwise."""

    denoise: AugmentationOrNull = None
    """Random corruption of the input, with the keys of `augmentation`: the autoencoder learns to
    reconstruct the clean image. Validation images are corrupted too, by the same amounts in every
    epoch. null: none."""

    noise: Share = 0.0
    """Short for `denoise` with this `noise` and nothing else."""

    @property
    def corruption(self) -> Augmentation | None:
        """How the input is changed, by `denoise` or `noise`."""
        return Augmentation(noise=self.noise) if self.noise else self.denoise

    @property
    @override
    def views(self) -> dict[str, tuple[Augmentation, ...]]:
        augmented = super().views
        changes = (*augmented.get("augmented", ()), self.corruption)
        return augmented | ({"input": changes} if self.corruption else {})

    @field_validator("noise")
    @classmethod
    def _noise_or_denoise(cls, noise: float, info: ValidationInfo) -> float:
        if noise and info.data.get("denoise"):
            raise refusal("must be 0 with denoise", "Set the noise of denoise instead.")
        return noise

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
            raise refusal(
                f"must not be binary_crossentropy with the activation_function {activation}, "
                "whose output can leave [0, 1]",
                "Use Sigmoid, or mean_squared_error.",
            )
        return loss


class ClassifierConfig(Config):
    """The hyperparameters of a classifier, with all defaults."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": {
                "properties": {key: {"const": 0} for key in PHASE_KEYS},
                "required": [*PHASE_KEYS],
            }
        }
    )
    kind = "classifier"
    epochs_key = PHASE_KEYS[-1]

    dense_layers: DenseLayers = Field(examples=[[["dense", 64], ["dense", 32]]])
    """Layers between the encoder and the output layer, which is added: `["dense", units]`,
    `["drop", rate]`, `["batchNorm"]`."""

    encoder_layers: ClassifierEncoder = None
    """Path of a saved model whose encoder is used, or a list of layers for an untrained encoder;
    null: the flag `-model` gives the model."""

    dense_only_train_epochs: PhaseEpochs = Field(examples=[5])
    """Epochs of the first phase, which trains only the dense layers."""

    full_train_epochs: PhaseEpochs = Field(examples=[10])
    """Epochs of the second phase, which trains all layers."""

    class_weight: choice_type(CLASS_WEIGHTS) | None = None
    """balanced: weight each class by the inverse of its frequency; null: all images count the
    same."""

    best_epoch_by: choice_type(BEST_EPOCH_BY) = "auto"
    """What chooses the best epoch: `accuracy` or macro `f1` on the validation images; `auto`: f1 if
    the largest class has more than 3 times the images of the smallest, else accuracy; `last`: the
    last epoch, for when labels are too few to hold any out. Without validation images, the lowest
    training loss, or with `unlabelled` the last epoch."""

    unlabelled: UnlabelledOrNull = None
    """How to learn from images without labels in the second phase: an object with
    `label_spreading`, `pseudo_labels` or both; null: from the labelled images alone."""

    def check_unlabelled(self, num_unlabelled: int) -> None:
        """Refuses to learn from images without labels where that is not possible.

        Raises:
            UserError: There are no such images, or Keras runs on another backend than TensorFlow.
        """
        if self.unlabelled is None:
            return
        if num_unlabelled == 0:
            raise UserError(
                "unlabelled",
                "this key of the configuration requires images without labels",
                "none",
                "Add --unlabelled IMAGES, or --labels-per-class N to try it.",
            )
        from cae.terminal import get_backend  # with rich, which is slow to load

        if (backend := get_backend()) != "tensorflow":
            raise UserError(
                "unlabelled",
                "this key of the configuration requires Keras on TensorFlow",
                backend,
                "Set KERAS_BACKEND=tensorflow.",
            )

    @property
    @override
    def views(self) -> dict[str, tuple[Augmentation, ...]]:
        how = self.unlabelled
        return super().views | ({"weak": (how.weak,), "strong": (how.strong,)} if how else {})

    @override
    def count_steps(self, num_training: int, num_unlabelled: int = 0) -> int:
        if self.unlabelled is None:
            return super().count_steps(num_training)
        return max(1, math.ceil(num_unlabelled / self.unlabelled.batch_size))

    def count_images(self, num_training: int, num_unlabelled: int = 0) -> int:
        """The images in an epoch of the second phase, repetitions included."""
        if self.unlabelled is None:
            return num_training
        steps = self.count_steps(num_training, num_unlabelled)
        return steps * (self.batch_size + self.unlabelled.batch_size)

    def get_monitor(self, has_validation: bool, is_imbalanced: bool) -> tuple[str, ...]:
        """The metrics that choose the best epoch: by the first, of equals by the second.

        None: the last epoch is kept.

        Args:
            has_validation: Whether any images are held out for validation.
            is_imbalanced: Whether the classes differ so much that accuracy says little.
        """
        if self.best_epoch_by == "last":
            return ()
        if not has_validation:  # the losses of epochs whose pseudo-labels differ say nothing
            return () if self.unlabelled else ("loss",)
        score = self.best_epoch_by
        if score == "auto":
            score = "f1" if is_imbalanced else "accuracy"
        return f"val_{score}", "val_loss"

    @override
    def lengthened(self, steps_per_epoch: int) -> Self:
        longer, how = super().lengthened(steps_per_epoch), self.unlabelled
        spreading = how and how.label_spreading
        if longer is self or not spreading or spreading.refresh is None:
            return longer
        refresh = round(spreading.refresh * longer.full_train_epochs / self.full_train_epochs)
        spreading = spreading.model_copy(update={"refresh": refresh})
        how = how.model_copy(update={"label_spreading": spreading})
        return longer.model_copy(update={"unlabelled": how})

    @field_validator("full_train_epochs")
    @classmethod
    def _some_phase_trains(cls, epochs: int, info: ValidationInfo) -> int:
        if epochs == 0 and info.data.get("dense_only_train_epochs") == 0:
            raise refusal(
                "must not be 0 when dense_only_train_epochs is 0 as well",
                "Set at least one of them to 1 or more.",
            )
        return epochs


class RecipeKeys(Keys):
    """A recipe: a classifier, and the autoencoder whose encoder it begins with, if there is one."""

    # Its configurations may be wrapped, so `validate_config` validates them, one at a time.

    labels: Labels = None
    """How many labels it is for, or `"all"`: for images that all have one. `experiments.py recipe`
    chooses by it among the shipped recipes; null: it is chosen by name only."""

    autoencoder: Half = None
    """The configuration of the autoencoder whose encoder the classifier begins with; null: it
    begins with its own `encoder_layers`."""

    classifier: Half = None
    """The configuration of the classifier."""


CONFIGS: dict[str, type[Config]] = {
    config.kind: config for config in (AutoencoderConfig, ClassifierConfig)
}


# --- JSON Schema ----------------------------------------------------------------------------


class _SchemaWithoutTitles(GenerateJsonSchema):
    """JSON Schema without titles, which would repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """The JSON Schema of recipes and both kinds of configuration, bare or wrapped, for editors.

    JSON Schema cannot express whether a decoder undoes its encoder: `check_shapes` does.
    Source: https://json-schema.org/draft/2020-12
    """
    models = [*CONFIGS.values(), RecipeKeys]
    _, schema = models_json_schema(
        [(model, "validation") for model in models],
        schema_generator=_SchemaWithoutTitles,
    )
    definitions = schema["$defs"]
    for definition in definitions.values():
        for key in definition.get("properties", {}).values():
            key["description"] = " ".join(key["description"].split())
    unused = {key: {"description": text, "type": "string"} for key, text in UNUSED.items()}
    for model in models:
        properties = definitions[model.__name__]["properties"]
        definitions[model.__name__]["properties"] = unused | properties
    halves = definitions["RecipeKeys"]["properties"]
    for kind, config in CONFIGS.items():
        halves[kind]["anyOf"] = [{"$ref": f"#/$defs/{config.__name__}"}, {"type": "null"}]
    definitions["Config"] = {
        "if": {"required": ["dense_layers"]},
        "then": {"$ref": "#/$defs/ClassifierConfig"},
        "else": {"$ref": "#/$defs/AutoencoderConfig"},
    }
    definitions["Document"] = {
        "if": {"anyOf": [{"required": [kind]} for kind in CONFIGS]},
        "then": {"$ref": "#/$defs/RecipeKeys"},
        "else": {"$ref": "#/$defs/Config"},
    }
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "Hyperparameters of an autoencoder or a classifier, or a recipe of both",
        "type": "object",
        "if": {"required": ["model_info"]},
        "then": {
            "properties": unused | {"model_info": {"$ref": "#/$defs/Config"}},
            "additionalProperties": False,
        },
        "else": {"$ref": "#/$defs/Document"},
        "$defs": definitions,
    }

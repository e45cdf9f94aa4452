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

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from cae.config.choices import MAX_EPOCHS
from cae.config.fields import (
    ACTIVATIONS,
    LAYER_HOMES,
    LOSSES,
    AugmentationKey,
    BatchNorm,
    BatchSizeKey,
    ClassifierEncoderKey,
    Conv,
    Dense,
    Drop,
    EarlyStoppingKey,
    EncoderLayers,
    Epochs,
    L2Key,
    MixedPrecisionKey,
    OptimizerKey,
    Pool,
    ScheduleKey,
    SeedKey,
    UpSample,
    ValidationSplitKey,
    form_type,
    layers_type,
)
from cae.config.values import choice_type, integer_type, number_type, refusal

# Keys that people look for under a different name, beyond misspellings.
OTHER_NAMES = {"learning_rate": "optimizer", "lr": "optimizer", "patience": "early_stopping"}
PHASE_KEYS = ("dense_only_train_epochs", "full_train_epochs")

Kind = Literal["autoencoder", "classifier"]


class BaseConfig(BaseModel):
    """The base of both kinds of configuration."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    kind: ClassVar[Kind]


class AutoencoderConfig(BaseConfig):
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

    encoder_layers: Annotated[
        EncoderLayers,
        Field(
            description="Layers from the image to the encoding: "
            '`["conv", filters, [h, w]]`, `["pool", [h, w]]`, `["batchNorm"]`, `["drop", rate]`.',
            examples=[[["conv", 32, [3, 3]], ["pool", [2, 2]]]],
        ),
    ]
    decoder_layers: Annotated[
        layers_type(
            form_type(Conv, UpSample, Pool, BatchNorm, Drop, homes=LAYER_HOMES), at_least=0
        ),
        Field(
            description="Layers from the encoding back to the image: those of the encoder, with "
            '`["upSample", [h, w]]` instead of `pool` (which means `upSample` here). '
            "The output convolution is added.",
            examples=[[["upSample", [2, 2]], ["conv", 32, [3, 3]]]],
        ),
    ]
    optimizer: OptimizerKey
    batch_size: BatchSizeKey
    epochs: Annotated[Epochs, Field(description="Passes over the training images.", examples=[10])]
    activation_function: Annotated[
        choice_type(ACTIVATIONS),
        Field(description="Activation of the output: Sigmoid, Linear or Relu, in any case."),
    ] = "Sigmoid"
    loss: Annotated[
        choice_type(LOSSES) | None,
        Field(
            description="Loss to minimise; binary_crossentropy requires Sigmoid. null: "
            "binary_crossentropy for Sigmoid, mean_squared_error otherwise.",
            validate_default=True,
        ),
    ] = None
    validation_split: ValidationSplitKey = 0.1
    seed: SeedKey = 0
    early_stopping: EarlyStoppingKey = None
    noise: Annotated[
        number_type("from 0 to 1", ge=0, le=1),
        Field(
            description="Standard deviation of Gaussian noise added to the input pixels, which are "
            "in [0, 1]; above 0 trains a denoising autoencoder."
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
            raise refusal(
                f"must not be binary_crossentropy with the activation_function {activation}, "
                "whose output can leave [0, 1]",
                "Use Sigmoid, or mean_squared_error.",
            )
        return loss


class ClassifierConfig(BaseConfig):
    """The hyperparameters of a classifier, with all defaults."""

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
        layers_type(form_type(Dense, Drop, BatchNorm, homes=LAYER_HOMES), at_least=0),
        Field(
            description="Layers between the encoder and the output layer, which is added: "
            '`["dense", units]`, `["drop", rate]`, `["batchNorm"]`.',
            examples=[[["dense", 64], ["dense", 32]]],
        ),
    ]
    encoder_layers: ClassifierEncoderKey = None
    optimizer: OptimizerKey
    dense_only_train_epochs: Annotated[
        integer_type(0, MAX_EPOCHS),
        Field(
            description="Epochs of the first phase, which trains only the dense layers.",
            examples=[5],
        ),
    ]
    full_train_epochs: Annotated[
        integer_type(0, MAX_EPOCHS),
        Field(
            description="Epochs of the second phase, which trains all layers.",
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
            raise refusal(
                "must not be 0 when dense_only_train_epochs is 0 as well",
                "Set at least one of them to 1 or more.",
            )
        return epochs


Config = AutoencoderConfig | ClassifierConfig
CONFIGS: dict[str, type[BaseConfig]] = {
    config.kind: config for config in (AutoencoderConfig, ClassifierConfig)
}


# --- JSON Schema ----------------------------------------------------------------------------


class _SchemaWithoutTitles(GenerateJsonSchema):
    """JSON Schema without titles, which would repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """The JSON Schema of both kinds of configuration, bare or wrapped, for editors.

    JSON Schema cannot express whether a decoder undoes its encoder: `check_shapes` does.
    Source: https://json-schema.org/draft/2020-12
    """
    _, schema = models_json_schema(
        [(config, "validation") for config in CONFIGS.values()],
        schema_generator=_SchemaWithoutTitles,
    )
    definitions = schema["$defs"]
    schema_key = {
        "description": "The JSON Schema, for editors; otherwise ignored.",
        "type": "string",
    }
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

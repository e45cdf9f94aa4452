"""How long trainings will take, from the multiplications of their convolutions. No Keras."""

from collections import defaultdict
from collections.abc import Sequence
from math import prod
from pathlib import Path

from cae.config.fields import Conv, UpSample
from cae.config.load import load_config, validate_config
from cae.config.schema import AutoencoderConfig, Config
from cae.config.shapes import Shape, trace_shapes
from cae.config.study import StudyFile, expand
from cae.config.study_schema import Base, BestEncoder
from cae.errors import ConfigurationError
from cae.records.saved_models import read_metadata

# Fitted to the images per second of the shipped configurations on 2 cores with AVX-512
# (docs/performance.md); what is left on another machine follows from its finished trainings.
MULTIPLICATIONS_PER_SECOND = 72e9  # of the forward pass, of images that are trained on
# What an image costs beside its convolutions, and in a dense head on encodings that are cached.
BESIDE_CONVOLUTIONS = 13e6
IN_HEAD_ALONE = 3e6
START_SECONDS = 3  # to build, compile, evaluate and save


def count_multiplications(config: Config, input_shape: Shape) -> int:
    """Multiplications of an image in the convolutions of a model, forward, as it is trained.

    Args:
        config: Of an autoencoder, or of a classifier that lists the layers of its encoder.
        input_shape: (height, width, channels) of the images.
    """
    layers = list(config.encoder_layers) if isinstance(config.encoder_layers, tuple) else []
    shapes = [shape for _, shape in trace_shapes(config, input_shape)]
    if isinstance(config, AutoencoderConfig):
        # The last convolution draws the image.
        layers += [*config.decoder_layers, Conv("conv", input_shape[-1], (3, 3))]
        shapes.append(tuple(input_shape))
    total = 0.0
    for before, layer, (*_, channels), (height, width, filters) in zip(
        [None, *layers], layers, shapes, shapes[1:], strict=False
    ):
        if isinstance(layer, Conv):
            share = _fused_share(before, layer) if isinstance(before, UpSample) else 1
            total += share * height * width * channels * filters * prod(layer.kernel_size)
    return round(total)


def _fused_share(upsampling: UpSample, convolution: Conv) -> float:
    """What is left of a convolution's multiplications when the two are computed as one."""
    sizes = zip(upsampling.size, convolution.kernel_size, strict=True)
    return prod((kernel + stride - 1) / (kernel * stride) for stride, kernel in sizes)


def estimate_training(
    config: Config,
    input_shape: Shape,
    num_images: int,
    encoder_layers: Sequence | None = None,
) -> float:
    """Seconds that a training will take on 2 cores.

    Args:
        config: Of what is trained.
        input_shape: (height, width, channels) of the images.
        num_images: Images for training and validation together.
        encoder_layers: Of the saved model that a classifier takes its encoder from, if known.
    """
    trained = (1 - config.validation_split) * num_images
    if isinstance(config, AutoencoderConfig):
        each = count_multiplications(config, input_shape) + BESIDE_CONVOLUTIONS
        work = config.epochs * each
    else:
        if encoder_layers:
            config = config.model_copy(update={"encoder_layers": encoder_layers})
        each = count_multiplications(config, input_shape) + BESIDE_CONVOLUTIONS
        work = config.full_train_epochs * each + config.dense_only_train_epochs * IN_HEAD_ALONE
    return START_SECONDS + trained * work / MULTIPLICATIONS_PER_SECOND


def estimate_study(
    file: StudyFile, input_shape: Shape, num_images: int, others: Sequence[StudyFile] = ()
) -> float:
    """Seconds that a study will take on 2 cores, its screening included.

    Args:
        file: The study.
        input_shape: (height, width, channels) of its images.
        num_images: How many of them there are without a limit.
        others: Studies that may come before it and train its encoders.
    """
    encoders = {base.label: _find_encoder(file, base, others) for base in file.study.bases}
    total = 0.0
    for part in file.rounds:
        screening = part.study.screening
        used = min(num_images, part.study.data.limit or num_images)
        by_base = defaultdict(list)
        for trial in expand(part, None, {}):
            layers = encoders[trial.base]
            seconds = estimate_training(trial.config, input_shape, used, layers)
            by_base[trial.base].append(seconds)
        for seconds in by_base.values():
            trained = screening.finalists * len(part.study.seeds) if screening else len(seconds)
            total += sum(seconds) * min(1, trained / len(seconds))
    return total


def _find_encoder(file: StudyFile, base: Base, others: Sequence[StudyFile]) -> Sequence | None:
    """The layers of the encoder that a base of classifiers will be trained on, if known."""
    if base.model:
        return get_encoder_layers(file.resolve(base.model))
    for other in others:
        for candidate in other.study.bases:
            if base.encoder == BestEncoder(study=other.study.name, base=candidate.label):
                path = other.resolve(candidate.configuration)
                return load_config(path, "autoencoder").encoder_layers
    return None


def get_encoder_layers(model: str | Path) -> Sequence | None:
    """The layers of a saved autoencoder's encoder as in its configuration, if it says so."""
    metadata = read_metadata(model)
    try:
        return validate_config(metadata["model_info"], str(model), "autoencoder").encoder_layers
    except (KeyError, ConfigurationError):  # made by another program
        return None


def format_duration(seconds: float) -> str:
    """``2 h 5 min``, ``5 min`` or ``40 s``."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"

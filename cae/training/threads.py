"""How a CPU's cores divide the work on a batch, decided before TensorFlow starts.

Usually all cores work on one operation and meet again before the next. In bfloat16 the operations
are so short that meeting takes a fifth of the time: there each core takes part of the images
through the whole model by itself, and the cores meet once a step.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cae.config.schema import AutoencoderConfig, ClassifierConfig

# Read by TensorFlow when it starts.
THREADS_OF_AN_OPERATION = "TF_NUM_INTRAOP_THREADS"
# Of a batch for one core: convolutions of fewer images are slower than meeting.
FEWEST_IMAGES = 8
DEVICES = Path("/dev")
CPU_FACTS = Path("/proc/cpuinfo")


def choose_cores(configs: Sequence[AutoencoderConfig | ClassifierConfig]) -> int:
    """How many cores take their own part of every batch; 1 where all share every operation.

    Args:
        configs: Everything that is going to be trained in this process.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    decided = "tensorflow" in sys.modules or THREADS_OF_AN_OPERATION in os.environ
    gains = cores > 1 and computes_bfloat16() and not _has_gpu()
    fits = all(_can_be_split(config, cores) for config in configs)
    return cores if configs and fits and gains and not decided else 1


def use_cores(cores: int) -> None:
    """Lets TensorFlow, once it starts, compute as many operations at a time, on a thread each."""
    if cores > 1:
        os.environ[THREADS_OF_AN_OPERATION] = "1"


def computes_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16; without them it is slower than float32."""
    try:
        facts = CPU_FACTS.read_text(encoding="utf-8")
    except OSError:
        return False  # not Linux: unknown
    return "avx512_bf16" in facts or "amx_bf16" in facts


def _can_be_split(config: AutoencoderConfig | ClassifierConfig, cores: int) -> bool:
    """BatchNorm normalises by the whole batch; a classifier's head gains nothing."""
    if config.kind != "autoencoder" or not config.mixed_precision:
        return False
    layers = {layer.kind for layer in (*config.encoder_layers, *config.decoder_layers)}
    return "batchNorm" not in layers and config.batch_size >= cores * FEWEST_IMAGES


def _has_gpu() -> bool:
    """Without asking TensorFlow, which would start it."""
    return any(DEVICES.glob("nvidia[0-9]*")) or (DEVICES / "kfd").exists()

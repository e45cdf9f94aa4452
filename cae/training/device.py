"""The device that computes: its name, whether a step fits in its memory, images that stay on it.

When memory runs out on a CPU, Linux kills the program without a message (exit code 137); when an
allocation fails instead, TensorFlow's kernels crash (139). So the least that a step needs is
compared with what is free. On a GPU TensorFlow raises an error that can be caught.

Images stay on a GPU: batches then hold only their numbers, and the model looks the images up. A
step waits for a few bytes per image instead of all its pixels as float32.
"""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np
import psutil
import tensorflow as tf
from keras import ops

from cae.config.schema import Config
from cae.data.datasets import Scaling
from cae.errors import UserError
from cae.records.saved_models import get_layers

GIB = 2**30
# Layers whose output is a view of their input or is not kept for the gradients.
WITHOUT_MEMORY = (keras.layers.InputLayer, keras.layers.Flatten, keras.layers.Reshape)
# What is raised when memory runs out.
OUT_OF_MEMORY = (MemoryError, tf.errors.ResourceExhaustedError)
# Most bytes of images or encodings on a GPU; the rest of a small GPU's memory is for training.
MOST_BYTES = 2 * GIB
# How many times as many images as on a CPU go into one execution on a GPU.
GPU_SPEED = 16
# On Linux, what the processor can do.
CPU_FACTS = Path("/proc/cpuinfo")


def get_name() -> str:
    """The device in words."""
    if keras.backend.backend() != "tensorflow" and has_gpu():
        return ", ".join(map(str, keras.distribution.list_devices()))
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return f"CPU, {os.cpu_count()} cores"
    names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in gpus]
    return ", ".join(f"GPU {name or 'of unknown name'}" for name in names)


def has_gpu() -> bool:
    """Whether Keras computes on anything but a CPU."""
    # Asked for GPUs alone, JAX fails where there are none.
    return not any("cpu" in name.lower() for name in keras.distribution.list_devices())


def get_compute_dtype(config: Config) -> str:
    """The type in which a configuration is computed here, `bfloat16` or `float32`.

    On a CPU without instructions for bfloat16 it is nine times slower than float32, which therefore
    takes its place. A CPU that does not tell is taken for one without.
    """
    return "bfloat16" if config.mixed_precision and _has_bfloat16() else "float32"


def _has_bfloat16() -> bool:
    if has_gpu():
        return True
    try:
        facts = CPU_FACTS.read_text(encoding="utf-8")
    except OSError:
        return False  # not Linux: unknown
    return "avx512_bf16" in facts or "amx_bf16" in facts


# --- Memory -----------------------------------------------------------------------------------


@contextmanager
def batches_in_memory(model: keras.Model, batch_size: int, value_bytes: int = 4) -> Iterator[None]:
    """Checks that a training step fits, and names the batch size if memory runs out nevertheless.

    Raises:
        UserError: The activations of one batch need more memory than is free, or memory ran out.
    """
    needed = get_step_bytes(model, batch_size, value_bytes)
    free = get_free_bytes()
    if needed > free and not has_gpu():
        got = f"{free / GIB:.1f} GiB free for a step of at least {needed / GIB:.1f} GiB"
        raise _does_not_fit(batch_size, got)
    try:
        yield
    except OUT_OF_MEMORY as error:
        raise _does_not_fit(batch_size, "no memory left") from error


def _does_not_fit(batch_size: int, got: str) -> UserError:
    return UserError(
        f"batch_size {batch_size}",
        "a training step must fit in memory",
        got,
        "Use a smaller --batch-size, fewer filters, or smaller images.",
    )


def get_step_bytes(model: keras.Model, batch_size: int, value_bytes: int = 4) -> int:
    """Bytes of the activations that a step keeps for its gradients.

    This is a lower bound of what the step needs: measured peaks were 1.3 to 1.9 times as large.
    `value_bytes` is 4 for float32 and 2 for bfloat16.
    """
    values = sum(
        math.prod(layer.output.shape[1:])
        for layer in get_layers(model)
        if not isinstance(layer, WITHOUT_MEMORY)
    )
    return values * batch_size * value_bytes


def get_free_bytes() -> float:
    """Bytes that this process can still allocate, swap included: the tightest limit counts."""
    machine = psutil.virtual_memory().available + psutil.swap_memory().free
    return min(machine, get_free_in_groups(), get_free_address_space())


def get_free_in_groups(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> float:
    """Bytes below the limits of cgroup v2, as of containers and batch systems; infinite without.

    Limits of the group that `own` names, and of those above it up to `root`, which in a container
    is its own (https://docs.kernel.org/admin-guide/cgroup-v2.html).
    """
    group = root
    with suppress(OSError):
        named = re.search(r"^0::/(.*)$", own.read_text(), re.M)
        group = root / (named[1].lstrip("/") if named else "")
    groups = [group, *group.parents]
    return min(map(_get_free_in_group, groups[: groups.index(root) + 1]), default=math.inf)


def _get_free_in_group(folder: Path) -> float:
    with suppress(OSError, ValueError):  # no group, or one without a limit ("max")
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        # The kernel drops cached files when memory is needed.
        cached = re.search(r"^inactive_file (\d+)", (folder / "memory.stat").read_text(), re.M)
        return limit - used + int(cached[1] if cached else 0)
    return math.inf


def get_free_address_space() -> float:
    """Bytes below the limit of `ulimit -v`, which batch systems set; infinite without one."""
    if not hasattr(psutil, "RLIMIT_AS"):  # macOS and Windows
        return math.inf
    process = psutil.Process()
    limit, _ = process.rlimit(psutil.RLIMIT_AS)
    return math.inf if limit == psutil.RLIM_INFINITY else limit - process.memory_info().vms


# --- Images on a GPU --------------------------------------------------------------------------


def can_keep(images: np.ndarray) -> bool:
    """Whether there is a GPU that can hold the images, and scale them as NumPy does."""
    fits = images.nbytes <= MOST_BYTES
    is_exact = np.result_type(images.dtype, np.float32) == np.float32  # JAX has no float64
    return has_gpu() and fits and is_exact


def look_up(
    model: keras.Model, images: np.ndarray, scaling: Scaling | None, *, to_itself: bool = False
) -> tuple[keras.Model, np.ndarray]:
    """A model that finds the images by their numbers, with the images on its device.

    Args:
        model: A functional model of images.
        images: As for `Lookup`; so is `scaling`.
        to_itself: Whether the images are an output as well, the target of the model's.

    Returns:
        The model, and the numbers of all images, int32 (num_images,).
    """
    numbers = keras.Input((), dtype="int32", name="numbers")
    found = Lookup(images, scaling)(numbers)
    outputs = (model(found), found) if to_itself else model(found)
    return keras.Model(numbers, outputs), np.arange(len(images), dtype=np.int32)


class Lookup(keras.layers.Layer):
    """Numbers of images -> these images.

    Args:
        images: (num_images, ...) in any dtype; kept on the device, and not trained.
        scaling: Brings them to [0, 1]; None leaves them as they are.
    """

    def __init__(self, images: np.ndarray, scaling: Scaling | None):
        super().__init__(name="lookup", dtype="float32")
        self._scaling = scaling
        self._images = self.add_weight(
            shape=images.shape,
            dtype=images.dtype.name,
            initializer=lambda shape, dtype: ops.convert_to_tensor(images, dtype),
            trainable=False,
            autocast=False,
        )

    def call(self, numbers: Any) -> Any:
        """int32 (batch,) -> float32 (batch, ...)."""
        found = ops.cast(ops.take(self._images, numbers, axis=0), "float32")
        if self._scaling is None:
            return found
        return ops.clip((found - self._scaling.offset) / self._scaling.scale, 0.0, 1.0)

"""Whether a training step fits in memory, checked before the system kills the program.

When memory runs out on a CPU, Linux kills the program without a message (exit code 137); when an
allocation fails instead, TensorFlow's kernels crash (139). So the least that a step needs is
compared with what is free. On a GPU TensorFlow raises an error that can be caught.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import keras
import psutil

from cae.errors import UserError
from cae.training import on_device
from cae.training.batches import OUT_OF_MEMORY

GIB = 2**30
# Layers whose output is a view of their input or is not kept for the gradients.
WITHOUT_MEMORY = (keras.layers.InputLayer, keras.layers.Flatten, keras.layers.Reshape)


@contextmanager
def batches_in_memory(model: keras.Model, batch_size: int, value_bytes: int = 4) -> Iterator[None]:
    """Checks that a training step fits, and names the batch size if memory runs out nevertheless.

    Args:
        model: The model that is trained inside the context.
        batch_size: Images per step.
        value_bytes: Bytes per value of an activation: 4 for float32, 2 for bfloat16.

    Raises:
        UserError: The activations of one batch need more memory than is free, or memory ran out.
    """
    needed = get_step_bytes(model, batch_size, value_bytes)
    free = get_free_bytes()
    if needed > free and not on_device.has_gpu():
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
    """
    values = sum(
        math.prod(layer.output.shape[1:])
        for layer in _get_layers(model)
        if not isinstance(layer, WITHOUT_MEMORY)
    )
    return values * batch_size * value_bytes


def _get_layers(layer: keras.Layer) -> Iterator[keras.Layer]:
    if isinstance(layer, keras.Model):
        for part in layer.layers:
            yield from _get_layers(part)
    else:
        yield layer


def get_free_bytes() -> float:
    """Bytes that this process can still allocate, swap included: the tightest limit counts."""
    machine = psutil.virtual_memory().available + psutil.swap_memory().free
    return min(machine, _get_free_in_container(), _get_free_address_space())


def _get_free_in_container(folder: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes below the limit of cgroup v2; infinite without one."""
    with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        # The kernel drops cached files when memory is needed.
        cached = re.search(r"^inactive_file (\d+)", (folder / "memory.stat").read_text(), re.M)
        return limit - used + int(cached[1] if cached else 0)
    return math.inf


def _get_free_address_space() -> float:
    """Bytes below the limit of `ulimit -v`, which batch systems set; infinite without one."""
    if not hasattr(psutil, "RLIMIT_AS"):  # macOS and Windows
        return math.inf
    process = psutil.Process()
    limit, _ = process.rlimit(psutil.RLIMIT_AS)
    return math.inf if limit == psutil.RLIM_INFINITY else limit - process.memory_info().vms

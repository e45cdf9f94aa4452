"""Memory: whether a training step fits, asked before the system ends the program without a word.

Where memory runs out on a CPU nobody gets to say so: Linux kills the program (exit code 137), and
where an allocation fails instead TensorFlow's kernels crash (139). So what a step surely needs is
compared with what is free. On a GPU TensorFlow raises an error that can be caught.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import keras

from cae.errors import UserError
from cae.training import on_device
from cae.training.batches import OUT_OF_MEMORY

GIB = 2**30
# Layers whose output is another view of their input, or is not kept for the gradients.
WITHOUT_MEMORY = (keras.layers.InputLayer, keras.layers.Flatten, keras.layers.Reshape)


@contextmanager
def batches_in_memory(model: keras.Model, batch_size: int, value_bytes: int = 4) -> Iterator[None]:
    """Checks that a training step fits, and says the batch size if memory runs out all the same.

    Args:
        model: What is going to be fitted inside.
        batch_size: Images a step.
        value_bytes: Of one value of an activation: 4 for float32, 2 for bfloat16.

    Raises:
        UserError: The activations of one batch need more than what is free, or memory ran out.
    """
    needed = get_step_bytes(model, batch_size, value_bytes)
    free = get_free_bytes()
    if needed > free and not on_device.has_gpu():
        got = f"{free / GIB:.1f} GiB free for the {needed / GIB:.1f} GiB or more of a step"
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
    """What the activations that a step keeps for its gradients take, in bytes.

    The least that it needs: measured peaks were 1.3 to 1.9 times as large.
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
    """Bytes that this process may still take, swap included; infinite where nothing says so."""
    return min(_get_free_on_machine(), _get_free_in_container(), _get_free_address_space())


def _get_free_on_machine(meminfo: Path = Path("/proc/meminfo")) -> float:
    found = _read_table(meminfo)
    if "MemAvailable:" not in found:
        return math.inf
    return (found["MemAvailable:"] + found.get("SwapFree:", 0)) * 1024


def _get_free_in_container(folder: Path = Path("/sys/fs/cgroup")) -> float:
    """By cgroup v2; files that the kernel keeps in memory make room when it is needed."""
    with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        return limit - used + _read_table(folder / "memory.stat").get("inactive_file", 0)
    return math.inf


def _get_free_address_space() -> float:
    """By `ulimit -v`, which batch systems set."""
    with suppress(ImportError, OSError):  # not on Windows
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            return limit - pages * resource.getpagesize()
    return math.inf


def _read_table(path: Path) -> dict[str, int]:
    """Lines of a name and a number; empty where there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {name: int(number) for name, number, *_ in map(str.split, lines)}

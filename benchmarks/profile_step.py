"""Where the time of a training step goes, and how near it is to what this machine can do.

    python benchmarks/profile_step.py                       small, batch 32, float32
    python benchmarks/profile_step.py --size large --bf16

Trains an autoencoder as the program does and profiles its last epoch with TensorFlow's profiler.
Beside the time by kind of operation it prints a roofline (Williams, Waterman & Patterson 2009):
multiplications and bytes counted from the configuration, against the fastest matrix product and
the fastest copy measured here.
"""

import argparse
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.workers import get_config  # noqa: E402
from cae import terminal  # noqa: E402
from cae.config.load import override
from cae.config.schema import AutoencoderConfig  # noqa: E402
from cae.data.datasets import load_dataset  # noqa: E402
from cae.programs import flags
from cae.programs import start as start_module

IMAGES = 3072
EPOCHS = 4  # one to compile, two to warm up, one to look at
MATRIX = 2048  # side of the matrices multiplied
COPIED_BYTES = 2**28  # far more than any cache
# Ends of the profiler's operation names -> what they are; the first that fits counts.
KINDS = {
    "Conv2DBackpropFilter": "convolutions: gradient of the kernel",
    "Conv2DBackpropFilterWithBias": "convolutions: gradient of the kernel",
    "Conv2DBackpropInput": "convolutions: transposed, or gradient of the input",
    "Conv2D": "convolutions: forward, or gradient of a transposed one",
    "MatMul": "matrix products: output convolution, sums of kernels",
    "Transpose": "transposed kernels",
    "MaxPool": "pooling",
    "MaxPoolGrad": "pooling",
    "Relu": "relu and bias",
    "ReluGrad": "relu and bias",
    "AddV2": "relu and bias",
    "Sum": "relu and bias",
    "Cast": "casts",
}


@dataclass(frozen=True)
class Work:
    """What training on one image takes, counted from the layers.

    Attributes:
        operations: Floating-point operations: 2 for each multiplication, forward and backward.
        bytes: Activations written and read, forward and backward, were no cache to help.
    """

    operations: float
    bytes: float


def count_work(config: AutoencoderConfig, shape: tuple[int, int, int]) -> Work:
    """Counts the fused computation: an `upSample` and its `conv` are one transposed convolution."""
    height, width, channels = shape
    multiplications, values, first = 0.0, 0.0, True
    layers = [*config.encoder_layers, *config.decoder_layers, ("conv", channels, (3, 3))]
    factors = (1, 1)
    for layer in layers:
        match layer:
            case ("pool", (rows, columns)):
                height, width = height // rows, width // columns
                values += 4 * height * width * channels
            case ("upSample", factors):
                pass
            case ("conv", filters, size):
                taps = math.prod(k + s - 1 for k, s in zip(size, factors, strict=True))
                # Forward, gradient of the kernel, and of the input but for the image's own.
                passes = 2 if first else 3
                multiplications += passes * height * width * taps * channels * filters
                inputs = height * width * channels
                height, width = height * factors[0], width * factors[1]
                values += passes * (inputs + height * width * filters)
                channels, factors, first = filters, (1, 1), False
    return Work(2 * multiplications, 4 * values)


def measure_machine(dtype: str) -> tuple[float, float]:
    """(operations/s of a matrix product, bytes/s read and written by a copy), the best of ten."""
    import tensorflow as tf

    matrix = tf.cast(tf.random.normal((MATRIX, MATRIX)), dtype)
    product = _best_time(lambda: tf.matmul(matrix, matrix).numpy())
    source, target = np.ones(COPIED_BYTES, np.uint8), np.empty(COPIED_BYTES, np.uint8)
    copy = _best_time(lambda: np.copyto(target, source))
    return 2 * MATRIX**3 / product, 2 * COPIED_BYTES / copy


def _best_time(work: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def profile(config: AutoencoderConfig, images: np.ndarray) -> tuple[float, Counter]:
    """(seconds a step, milliseconds a step by kind of operation) of the last epoch."""
    import keras
    import tensorflow as tf

    from cae.training import build, train

    steps = math.ceil(len(images) / config.batch_size)
    times = []
    with tempfile.TemporaryDirectory() as folder:

        def begin(epoch: int, logs: dict) -> None:
            if epoch == EPOCHS - 1:
                tf.profiler.experimental.start(folder)
            times.append(time.perf_counter())

        def end(epoch: int, logs: dict) -> None:
            times.append(time.perf_counter())
            if epoch == EPOCHS - 1:
                tf.profiler.experimental.stop()

        train.train_autoencoder(
            build.get_autoencoder(config, images.shape[1:]),
            config,
            images,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end)],
            warn=lambda sentence: None,
        )
        milliseconds = Counter()
        for name, duration in _read_operations(Path(folder)):
            milliseconds[name] += duration / steps
    return (times[-1] - times[-2]) / steps, milliseconds


def _read_operations(folder: Path) -> Iterator[tuple[str, float]]:
    """(kind, milliseconds) of everything that TensorFlow computed."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    for path in folder.rglob("*.xplane.pb"):
        space.ParseFromString(path.read_bytes())
    for plane in space.planes:
        names = {number: data.name for number, data in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                graph_name, _, operation = names[event.metadata_id].rpartition(":")
                if "/" in graph_name:  # not the runtime's own bookkeeping
                    yield _get_kind(operation), event.duration_ps / 1e9


def _get_kind(operation: str) -> str:
    plain = operation.removeprefix("_Mkl").removeprefix("Native").removeprefix("Fused")
    return KINDS.get(plain, "everything else: loss, optimizer, metrics")


def report(args: argparse.Namespace) -> int:
    """Profiles and prints."""
    config = override(
        get_config(args.size),
        batch_size=args.batch_size,
        epochs=EPOCHS,
        validation_split=0,
        mixed_precision=args.bf16,
    )
    images = np.resize(load_dataset(args.dataset, limit=IMAGES).images, (IMAGES, 28, 28, 1))
    work = count_work(config, images.shape[1:])
    speeds = measure_machine("bfloat16" if args.bf16 else "float32")
    seconds, milliseconds = profile(config, images)
    table = Table(title=f"{args.size}, batch {config.batch_size}", box=None, title_justify="left")
    table.add_column("milliseconds a step (two operations may run at once)")
    table.add_column("", justify="right")
    for kind, value in milliseconds.most_common():
        table.add_row(kind, f"{value:.2f}")
    terminal.OUT.print(table)
    rate = config.batch_size / seconds
    value_bytes = work.bytes / (2 if args.bf16 else 1)
    terminal.say(f"{seconds * 1e3:.1f} ms a step, {rate:,.0f} images/s in the profiled epoch")
    for what, amount, speed, unit in (
        ("operations", work.operations, speeds[0], "G/s"),
        ("bytes of activations", value_bytes, speeds[1], "GB/s"),
    ):
        terminal.say(
            f"{amount / 1e6:,.1f} million {what} an image; this machine does {speed / 1e9:,.0f} "
            f"{unit}: at most {speed / amount:,.0f} images/s, {rate * amount / speed:.0%} reached"
        )
    return 0


def main(argv: list[str] | None = None) -> int:
    """Runs the program and returns its exit code."""
    parser = flags.Parser(prog="profile_step.py", description=__doc__)
    parser.add_argument("-d", "--dataset", default="mnist", help="named data set (default: mnist)")
    parser.add_argument("--size", default="small", choices=("small", "medium", "large"))
    parser.add_argument("--batch-size", type=flags.whole_number(1, 4096), default=32, metavar="N")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    return start_module.run(report, parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())

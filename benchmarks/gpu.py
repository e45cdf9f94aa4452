"""The same on a GPU: Keras on JAX with our fused layer, beside PyTorch with torch.compile.

    pip install "jax[cuda13]" "keras>=3.15,<3.16" "torch>=2.13,<2.14" numpy pydantic rich
    python benchmarks/gpu.py --output gpu.json
    python benchmarks/gpu.py --device cpu --quick      only to see that it works

TensorFlow is not needed. Both keep the images on the device as uint8 and take the same steps in
float32 and bfloat16. Ours is one XLA program a round: `jax.lax.scan` over the batches. PyTorch is
channels_last, compiled, on a GPU with CUDA graphs ("reduce-overhead"). The pixels are random: it
does not matter to a convolution what they are. Results have the keys `<size>.b<batch>.vs_torch`
and `<size>.b<batch>.bf16.vs_torch_bf16`, how many times as fast ours is.
"""

import argparse
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import report  # noqa: E402
from benchmarks.report import Measurement  # noqa: E402
from benchmarks.rounds import ENVIRONMENT, THREADS, Driver, Worker, interleave  # noqa: E402
from benchmarks.workers import (  # noqa: E402
    get_config,
    get_plain_autoencoder,
    get_torch_autoencoder,
)
from cae import terminal  # noqa: E402
from cae.programs import flags, start

if TYPE_CHECKING:
    import torch

INPUT_SHAPE = (28, 28, 1)
COMPETITORS = ("torch", "torch_bf16", "ours", "ours_bf16")
PACKAGES = ("jax", "keras", "numpy", "torch")
JAX_PLATFORMS = {"cpu": "cpu", "gpu": "cuda"}


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        sizes: Autoencoders.
        batch_sizes: Of their training.
        images: A round; a multiple of all batch sizes.
        rounds: For each competitor, after one to warm up.
    """

    sizes: tuple[str, ...] = ("small", "medium", "large")
    batch_sizes: tuple[int, ...] = (32, 128, 1024)
    images: int = 60 * 1024
    rounds: int = 7


QUICK = Plan(sizes=("small",), batch_sizes=(32,), images=512, rounds=2)


@dataclass(frozen=True)
class Job:
    """What one worker does; as in workers.py, with the device `cpu` or `gpu`."""

    competitor: str
    device: str
    size: str
    batch_size: int
    images: int
    rounds: int

    @property
    def low_precision(self) -> bool:
        """Whether to compute in bfloat16."""
        return self.competitor.endswith("_bf16")

    def draw_images(self) -> np.ndarray:
        """uint8 (images, 28, 28, 1)."""
        shape = (self.images, *INPUT_SHAPE)
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def train_ours(job: Job, driver: Driver) -> None:
    """Keras on JAX: every round is one compiled scan over the shuffled batches."""
    import jax
    import keras
    from keras import ops

    from cae.training.layers import fuse

    if job.low_precision:
        keras.config.set_dtype_policy("mixed_bfloat16")
    config = get_config(job.size)
    model = fuse(get_plain_autoencoder(config, INPUT_SHAPE, activation="linear"))
    optimizer = keras.optimizers.Adam(config.optimizer.learning_rate)
    optimizer.build(model.trainable_variables)
    constants = [variable.value for variable in model.non_trainable_variables]

    def get_loss(weights: list, batch: Any) -> Any:
        logits, _ = model.stateless_call(weights, constants, batch, training=True)
        logits = ops.cast(logits, "float32")
        return ops.mean(ops.binary_crossentropy(batch, logits, from_logits=True))

    @functools.partial(jax.jit, donate_argnums=0)
    def train_epoch(state: tuple, images: Any, order: Any) -> tuple:
        def step(state: tuple, chosen: Any) -> tuple:
            weights, moments = state
            batch = images[chosen].astype("float32") / 255
            loss, gradients = jax.value_and_grad(get_loss)(weights, batch)
            return optimizer.stateless_apply(moments, gradients, weights), loss

        return jax.lax.scan(step, state, order)

    images = jax.device_put(job.draw_images())
    state = (
        [variable.value for variable in model.trainable_variables],
        [variable.value for variable in optimizer.variables],
    )
    for number in range(job.rounds):
        driver.wait()
        order = jax.random.permutation(jax.random.key(number), job.images)
        state, losses = train_epoch(state, images, order.reshape(-1, job.batch_size))
        _check_finite(float(losses.mean()))  # waits for the device
        driver.answer()


def train_torch(job: Job, driver: Driver) -> None:
    """PyTorch compiled: forward pass, loss and backward pass; the optimizer is one fused kernel."""
    import torch

    on_gpu = job.device == "gpu"
    device = torch.device("cuda" if on_gpu else "cpu")
    torch.set_num_threads(THREADS)
    torch.set_float32_matmul_precision("high")  # TensorFloat-32, which JAX uses as well
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    config = get_config(job.size)
    model = get_torch_autoencoder(config, INPUT_SHAPE[-1])
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), config.optimizer.learning_rate, fused=True)

    @torch.compile(mode="reduce-overhead" if on_gpu else None)
    def get_loss(pixels: "torch.Tensor") -> "torch.Tensor":
        batch = pixels.float() / 255
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=job.low_precision):
            logits = model(batch)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), batch)

    images = torch.from_numpy(job.draw_images()).permute(0, 3, 1, 2)
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    for _ in range(job.rounds):
        driver.wait()
        total = torch.zeros((), device=device)
        for chosen in torch.randperm(job.images, device=device).split(job.batch_size):
            torch.compiler.cudagraph_mark_step_begin()
            loss = get_loss(images[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        _check_finite(total.item())  # waits for the device
        driver.answer()


def _check_finite(loss: float) -> None:
    if not np.isfinite(loss):
        raise FloatingPointError("the loss is not finite")


def measure_all(plan: Plan, device: str) -> Iterator[Measurement]:
    """One measurement for each size and batch."""
    environment = {
        **ENVIRONMENT,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": JAX_PLATFORMS[device],
        # Otherwise each process takes three quarters of the GPU's memory for itself.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    for size in plan.sizes:
        for batch_size in plan.batch_sizes:
            job = Job("", device, size, batch_size, plan.images, plan.rounds + 1)
            workers = {
                name: Worker(name, _get_command(replace(job, competitor=name)), environment)
                for name in COMPETITORS
            }
            speeds = {
                name: [plan.images / value for value in seconds]
                for name, seconds in interleave(workers, plan.rounds).items()
            }
            yield Measurement(f"{size}.b{batch_size}", "images/s", speeds)


def _get_command(job: Job) -> list[str]:
    return [sys.executable, str(Path(__file__).resolve()), "--job", json.dumps(asdict(job))]


def measure(args: argparse.Namespace) -> int:
    """Measures, prints the table and writes the results, or works off a job."""
    if args.job:
        job = Job(**json.loads(args.job))
        train = train_torch if job.competitor.startswith("torch") else train_ours
        train(job, Driver())
        return 0
    destination = report.check_destination(args.output) if args.output else None
    plan = QUICK if args.quick else Plan()
    plan = replace(plan, rounds=args.rounds or plan.rounds)
    measurements = []
    for measurement in measure_all(plan, args.device):
        terminal.ERR.print(measurement.key)
        measurements.append(measurement)
    report.print_table(measurements, terminal.OUT)
    if destination:
        document = report.get_document(
            measurements,
            PACKAGES,
            command=args.command,
            device=get_gpu_name() if args.device == "gpu" else "cpu",
            plan=asdict(plan),
        )
        report.write_json(destination, document)
        terminal.say(f"Results: {terminal.relative(destination)}")
    return 0


def get_gpu_name() -> str:
    """What the driver calls the GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


def build_parser() -> flags.Parser:
    """The flags."""
    parser = flags.Parser(prog="gpu.py", description=__doc__)
    parser.add_argument("--device", choices=JAX_PLATFORMS, default="gpu", help="default: gpu")
    parser.add_argument("--quick", action="store_true", help="a few steps of the small autoencoder")
    parser.add_argument(
        "--rounds",
        type=flags.whole_number(1, 1000),
        metavar="N",
        help="rounds of every competitor, after one to warm up",
    )
    parser.add_argument("--output", metavar="FILE", help="also write the results as JSON")
    parser.add_argument("--job", help=argparse.SUPPRESS)  # what a worker is started with
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the program and returns its exit code."""
    return start.run(measure, build_parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())

"""Measurements as numbers under stable keys, as a table and as a figure."""

import datetime
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table

from benchmarks.rounds import THREADS, Spread, get_ratios, get_spread
from cae.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "keras": "plain Keras",
    "torch": "PyTorch",
    "torch_bf16": "PyTorch, bfloat16",
    "ours": "ours",
    "ours_bf16": "ours, bfloat16",
    "other": "other checkout",
}
# The name of a ratio, whose value it compares, and with whose.
COMPARISONS = (
    ("vs_keras", "ours", "keras"),
    ("vs_torch", "ours", "torch"),
    ("bf16.vs_keras", "ours_bf16", "keras"),
    ("bf16.vs_torch_bf16", "ours_bf16", "torch_bf16"),
    ("vs_other", "ours", "other"),
)
PACKAGES = ("keras", "numpy", "tensorflow", "torch")
SIZES = ("small", "medium", "large")
# Instructions that decide how fast convolutions are, and in which precision.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")

Unit = Literal["images/s", "s", "MB"]


@dataclass(frozen=True)
class Measurement:
    """How all competitors did at the same work.

    Attributes:
        key: The work, such as `autoencoder.small.b32`.
        unit: Of the values.
        values: By competitor, one per round.
    """

    key: str
    unit: Unit
    values: Mapping[str, Sequence[float]]

    def compare(self) -> dict[str, Spread]:
        """Our ratios to the others, by result key: `<key>.vs_keras` and so on.

        Of speeds and times, how many times as fast ours is; of memory, our share of theirs.
        """
        results = {}
        for name, ours, peer in COMPARISONS:
            if ours in self.values and peer in self.values:
                pair = self.values[ours], self.values[peer]
                # Less time is better, so that speed-up is their time over ours.
                ratios = get_ratios(*(reversed(pair) if self.unit == "s" else pair))
                results[f"{self.key}.{name}"] = ratios
        return results


def get_results(measurements: Sequence[Measurement]) -> dict[str, Spread]:
    """Ratios and start-up times by their stable keys, such as `frozen_phase.vs_keras`."""
    results: dict[str, Spread] = {}
    for measurement in measurements:
        results |= measurement.compare()
        if measurement.key == "startup":
            for program, seconds in measurement.values.items():
                results[f"startup.{program}_seconds"] = get_spread(seconds)
    return results


def describe_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """The machine, as far as the numbers depend on it. Only Linux names the instructions."""
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    facts = dict(re.findall(r"^(.*?)\s*: (.*)$", text, re.MULTILINE))
    known = facts.get("flags", facts.get("Features", "")).split()
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "instructions": [name for name in INSTRUCTIONS if name in known],
        "cores": os.cpu_count(),
        "threads": THREADS,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "platform": platform.platform(),
    }


def get_document(measurements: Sequence[Measurement], **facts: Any) -> dict[str, Any]:
    """The content of the file of results, with further facts such as the data set."""
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    installed = {package.name: package.version for package in metadata.distributions()}
    return {
        "date": date,
        "machine": describe_machine(),
        "versions": {
            "python": platform.python_version(),
            **{name: installed.get(name) for name in PACKAGES},
        },
        **facts,
        "results": get_results(measurements),
        "measurements": {
            measurement.key: {
                "date": date,
                "unit": measurement.unit,
                "competitors": {
                    name: {**get_spread(values), "rounds": list(values)}
                    for name, values in measurement.values.items()
                },
            }
            for measurement in measurements
        },
    }


def check_destination(path: str | Path) -> Path:
    """Raises a UsageError, before minutes of measuring, unless a file can be written there."""
    path = Path(path)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(
            "--output",
            "must be a file in a folder that can be written",
            path,
            "Create the folder, or choose another one.",
        )
    return path


def merge_into(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """The new document, completed with the file's measurements of other tasks."""
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    parts = ("results", "measurements")
    return {**document, **{part: {**earlier.get(part, {}), **document[part]} for part in parts}}


def get_measurements(document: Mapping[str, Any]) -> list[Measurement]:
    """The measurements in a document, the autoencoders from small to large."""

    def place(measurement: Measurement) -> tuple[int, int]:
        _, size, batch = (*measurement.key.split("."), "", "")[:3]
        return (SIZES.index(size), int(batch[1:])) if size in SIZES else (len(SIZES), 0)

    measurements = [
        Measurement(
            key,
            found["unit"],
            {name: values["rounds"] for name, values in found["competitors"].items()},
        )
        for key, found in document["measurements"].items()
    ]
    return sorted(measurements, key=place)


def make_table(measurements: Sequence[Measurement]) -> Table:
    """One row per competitor, ours with its ratios to the others; at most 80 columns wide."""
    table = Table(title="Medians over the rounds", box=None, padding=(0, 1, 0, 0))
    table.add_column("measured", no_wrap=True)
    for heading in ("median", "least to most", "vs Keras", "vs PyTorch"):
        table.add_column(heading, justify="right", no_wrap=True)
    for measurement in measurements:
        table.add_row(f"{measurement.key}, {measurement.unit}", style="bold")
        results = measurement.compare()
        digits = 2 if measurement.unit == "s" else 0
        for competitor, values in measurement.values.items():
            median, least, most = (f"{x:,.{digits}f}" for x in get_spread(values).values())
            ratios = {
                peer.removesuffix("_bf16"): f"{results[f'{measurement.key}.{name}']['median']:.2f}"
                for name, ours, peer in COMPARISONS
                if ours == competitor and peer in measurement.values
            }
            table.add_row(
                f"  {NAMES.get(competitor, competitor)}",
                median,
                f"{least} to {most}",
                ratios.get("keras"),
                ratios.get("torch"),
            )
    return table


def plot_speeds(measurements: Sequence[Measurement], title: str) -> "Figure":
    """Bars of images/s for every competitor, one panel per size and batch.

    Args:
        measurements: Those with a key `autoencoder.<size>.b<batch>` are drawn.
        title: Machine and subject.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from cae.figures.style import STYLE

    panels = {
        tuple(measurement.key.split(".")[1:]): measurement
        for measurement in measurements
        if measurement.key.startswith("autoencoder.")
    }
    sizes, batches = (list(dict.fromkeys(names)) for names in zip(*panels, strict=True))
    with rc_context(STYLE):
        figure = Figure(figsize=(1.6 + 3.2 * len(sizes), 0.9 + 1.7 * len(batches)))
        axes = figure.subplots(len(batches), len(sizes), sharex="col", sharey=True, squeeze=False)
        for (size, batch), measurement in panels.items():
            ax = axes[batches.index(batch), sizes.index(size)]
            _draw_bars(measurement, ax)
            ax.set_title(f"{size}, batch {batch.removeprefix('b')}")
        for ax in axes[0]:
            ax.set_xlim(left=0)  # of the whole column, once all of it is drawn
        axes[0, 0].invert_yaxis()  # shared by all: the first competitor on top
        label = "images/s in the fastest round; the line reaches to the median"
        figure.supxlabel(label, fontsize=9)
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def _draw_bars(measurement: Measurement, ax: Any) -> None:
    from cae.figures.style import BLUE, GRAY, INK

    for place, (competitor, values) in enumerate(measurement.values.items()):
        fastest = max(values)  # least disturbed by what else the machine does
        ax.barh(
            place,
            fastest,
            height=0.7,
            color=BLUE if competitor.startswith("ours") else GRAY,
            alpha=0.55 if competitor.endswith("_bf16") else 1.0,
            xerr=[[fastest - get_spread(values)["median"]], [0]],
            error_kw={"ecolor": INK, "elinewidth": 1, "capsize": 2},
        )
        ax.annotate(
            f"{fastest:,.0f}",
            (fastest, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    ax.set_yticks(range(len(measurement.values)), [NAMES[name] for name in measurement.values])
    ax.margins(x=0.25)
    ax.spines[["top", "right"]].set_visible(False)

"""What benchmarks measured, as numbers under stable keys, a table and a figure."""

import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table

from benchmarks.rounds import THREADS, Spread, get_ratios, get_spread
from cae import files
from cae.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "keras": "plain Keras",
    "torch": "PyTorch",
    "torch_bf16": "PyTorch, bfloat16",
    "ours": "ours",
    "ours_bf16": "ours, bfloat16",
}
# What a result is called, whose value it compares, and with whose.
COMPARISONS = (
    ("vs_keras", "ours", "keras"),
    ("vs_torch", "ours", "torch"),
    ("bf16.vs_keras", "ours_bf16", "keras"),
    ("bf16.vs_torch_bf16", "ours_bf16", "torch_bf16"),
)
PACKAGES = ("keras", "numpy", "tensorflow", "torch")

Unit = Literal["images/s", "s", "MB"]


@dataclass(frozen=True)
class Measurement:
    """What every competitor needed for the same work.

    Attributes:
        key: What was done, such as `autoencoder.small.b32`.
        unit: Of the values.
        values: By competitor, one a round.
    """

    key: str
    unit: Unit
    values: Mapping[str, Sequence[float]]

    def compare(self) -> dict[str, Spread]:
        """How we compare with the others, by result key: `<key>.vs_keras` and so on.

        Of speeds and times, how many times as fast we are; of memory, our part of theirs.
        """
        results = {}
        for name, ours, peer in COMPARISONS:
            if ours in self.values and peer in self.values:
                pair = self.values[ours], self.values[peer]
                # Less time is better, so that speed-up is their time over ours.
                results[f"{self.key}.{name}"] = get_ratios(
                    *(reversed(pair) if self.unit == "s" else pair)
                )
        return results


def get_results(measurements: Sequence[Measurement]) -> dict[str, Spread]:
    """The results that people compare, by their stable keys, such as `frozen_phase.vs_keras`."""
    results: dict[str, Spread] = {}
    for measurement in measurements:
        results |= measurement.compare()
        if measurement.key == "startup":
            for program, seconds in measurement.values.items():
                results[f"startup.{program}_seconds"] = get_spread(seconds)
    return results


def describe_machine() -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    return {
        "processor": _get_processor(),
        "cores": os.cpu_count(),
        "threads": THREADS,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "platform": platform.platform(),
    }


def get_versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Of Python and of packages, None for one that is not installed."""
    installed = {package.name: package.version for package in metadata.distributions()}
    return {
        "python": platform.python_version(),
        **{name: installed.get(name) for name in packages},
    }


def _get_processor() -> str:
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in facts if line.startswith("model name")]
    return names[0] if names else platform.machine()


def get_document(
    measurements: Sequence[Measurement], packages: Sequence[str] = PACKAGES, **facts: Any
) -> dict[str, Any]:
    """Everything as it goes into the file of results.

    Args:
        measurements: All of them.
        packages: Those whose versions matter.
        **facts: What else to record, such as the data set.
    """
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {
        "date": date,
        "machine": describe_machine(),
        "versions": get_versions(packages),
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
            "Make the folder, or choose another one.",
        )
    return path


def add_to_document(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured now, together with what the file holds of an earlier run's other tasks."""
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    parts = ("results", "measurements")
    return {**document, **{part: {**earlier.get(part, {}), **document[part]} for part in parts}}


def get_measurements(document: Mapping[str, Any]) -> list[Measurement]:
    """What a document was made from, the autoencoders from small to large."""
    known = [
        Measurement(
            key,
            found["unit"],
            {name: values["rounds"] for name, values in found["competitors"].items()},
        )
        for key, found in document["measurements"].items()
    ]
    return sorted(known, key=lambda measurement: _place(measurement.key))


def _place(key: str) -> tuple[int, int]:
    _, size, batch = (*key.split("."), "", "")[:3]
    sizes = ("small", "medium", "large")
    return (sizes.index(size), int(batch[1:])) if size in sizes else (len(sizes), 0)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes the results, complete or not at all."""
    with files.replace_file(path) as file:
        file.write((json.dumps(document, indent=2) + "\n").encode())


def print_table(measurements: Sequence[Measurement], console: Console) -> None:
    """A row for every competitor, ours with how they compare to the others; 80 columns wide."""
    table = Table(title="Medians over the rounds", box=None, padding=(0, 1, 0, 0))
    table.add_column("measured", no_wrap=True)
    for heading in ("median", "least to most", "vs Keras", "vs PyTorch"):
        table.add_column(heading, justify="right", no_wrap=True)
    for measurement in measurements:
        table.add_row(f"{measurement.key}, {measurement.unit}", style="bold")
        results = measurement.compare()
        for competitor, values in measurement.values.items():
            spread = {
                key: _format(value, measurement.unit) for key, value in get_spread(values).items()
            }
            compared = {
                peer.removesuffix("_bf16"): f"{results[f'{measurement.key}.{name}']['median']:.2f}"
                for name, ours, peer in COMPARISONS
                if ours == competitor and f"{measurement.key}.{name}" in results
            }
            table.add_row(
                f"  {NAMES.get(competitor, competitor)}",
                spread["median"],
                f"{spread['min']} to {spread['max']}",
                compared.get("keras"),
                compared.get("torch"),
            )
    console.print(table)


def _format(value: float, unit: Unit) -> str:
    return f"{value:,.2f}" if unit == "s" else f"{value:,.0f}"


def plot_speeds(measurements: Sequence[Measurement], title: str) -> "Figure":
    """Bars of images/s for every competitor, one panel for each size and batch.

    Args:
        measurements: Those with a key `autoencoder.<size>.b<batch>` are drawn.
        title: Says what and where was measured.
    """
    import matplotlib.pyplot as plt
    from matplotlib import rc_context

    from cae.figures.style import STYLE

    panels = {
        tuple(measurement.key.split(".")[1:]): measurement
        for measurement in measurements
        if measurement.key.startswith("autoencoder.")
    }
    sizes, batches = (list(dict.fromkeys(names)) for names in zip(*panels, strict=True))
    with rc_context(STYLE):
        figure, axes = plt.subplots(
            len(batches),
            len(sizes),
            figsize=(1.6 + 3.2 * len(sizes), 0.9 + 1.7 * len(batches)),
            sharex="col",
            sharey=True,
            squeeze=False,
        )
        for (size, batch), measurement in panels.items():
            ax = axes[batches.index(batch), sizes.index(size)]
            _draw_bars(measurement, ax)
            ax.set_title(f"{size}, batch {batch.removeprefix('b')}")
        for ax in axes[0]:
            ax.set_xlim(left=0)  # of the whole column, once all of it is drawn
        axes[0, 0].invert_yaxis()  # shared by all: the first competitor on top
        figure.supxlabel(
            "images/s in the fastest round; the line reaches to the median", fontsize=9
        )
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def _draw_bars(measurement: Measurement, ax: Any) -> None:
    from cae.figures.style import BLUE, GRAY, INK

    for place, (competitor, values) in enumerate(measurement.values.items()):
        spread = get_spread(values)
        fastest = spread["max"]  # what a shared machine disturbs least
        ax.barh(
            place,
            fastest,
            height=0.7,
            color=BLUE if competitor.startswith("ours") else GRAY,
            alpha=0.55 if competitor.endswith("_bf16") else 1.0,
            xerr=[[fastest - spread["median"]], [0]],
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

"""Measurements as numbers under stable keys, as a table and as a figure."""

import datetime
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table

from benchmarks.rounds import THREADS, get_ratios, get_spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {
    "keras": "plain Keras",
    "torch": "PyTorch",
    "torch_compile": "PyTorch compiled",
    "torch_bf16": "PyTorch, bfloat16",
    "torch_compile_bf16": "PyTorch compiled, bfloat16",
    "ours": "ours",
    "ours_bf16": "ours, bfloat16",
    "ours_files": "ours, from PNG files",
    "other": "other checkout",
    "unchanged": "images unchanged",
    "model": "our predict",
    "python": "bare Python",
}
# Ours, the names of ratios to a peer, and the peer.
COMPARISONS = (
    ("ours", "vs_keras", "keras"),
    ("ours", "vs_torch", "torch"),
    ("ours", "vs_torch_compile", "torch_compile"),
    ("ours_bf16", "bf16.vs_keras", "keras"),
    ("ours_bf16", "bf16.vs_torch_bf16", "torch_bf16"),
    ("ours_bf16", "bf16.vs_torch_compile", "torch_compile_bf16"),
    ("ours", "vs_other", "other"),
    ("ours", "vs_model", "model"),
    ("ours", "vs_unchanged", "unchanged"),
    ("ours_files", "files.vs_keras", "keras"),
    ("ours_files", "files.vs_model", "model"),
    # The start of a program.
    ("help", "help_vs_python", "python"),
    ("bad_configuration", "bad_configuration_vs_python", "python"),
    ("bad_study", "bad_study_vs_python", "python"),
)
PACKAGES = ("keras", "numpy", "tensorflow", "torch")
# Instructions that decide how fast convolutions are, and in which precision; of each maker, the
# strongest last.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")


@dataclass(frozen=True)
class Contest:
    """How all competitors did at the same work.

    Attributes:
        key: The work, such as `autoencoder.small.b32`.
        unit: Of the values.
        values: By competitor, one per round.
    """

    key: str
    unit: Literal["images/s", "s", "MB"]
    values: Mapping[str, Sequence[float]]

    def compare(self) -> dict[str, dict[str, float]]:
        """Ratios by result key: `<key>.vs_keras` and so on.

        Of speeds and times, how many times as fast ours is; of memory, our share of theirs; of a
        program's start, how many times as long as bare Python's. `fastest` is the ratio of the
        fastest rounds.
        """
        results = {}
        fastest = max if self.unit == "images/s" else min
        for ours, name, peer in COMPARISONS:
            if ours in self.values and peer in self.values:
                pair = [self.values[ours], self.values[peer]]
                if self.unit == "s" and peer != "python":  # less is faster
                    pair.reverse()
                best = fastest(pair[0]) / fastest(pair[1])
                results[f"{self.key}.{name}"] = {**get_ratios(*pair), "fastest": best}
        return results


def get_results(measurements: Sequence[Contest]) -> dict[str, dict[str, float]]:
    """Ratios and start-up times by their stable keys, such as `frozen_phase.vs_keras`."""
    results = {}
    for measurement in measurements:
        results |= measurement.compare()
        if measurement.key == "startup":
            for name, seconds in measurement.values.items():
                results[f"startup.{name}_seconds"] = get_spread(seconds)
    return results


def describe_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """The machine, as far as the numbers depend on it. Only Linux names the instructions.

    Its `kind` is the strongest of the instructions: between kinds, even ratios differ.
    """
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    facts = dict(re.findall(r"^(.*?)\s*: (.*)$", text, re.MULTILINE))
    known = facts.get("flags", facts.get("Features", "")).split()
    instructions = [name for name in INSTRUCTIONS if name in known]
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "instructions": instructions,
        "kind": instructions[-1] if instructions else "unknown",
        "has_bfloat16": any(name.endswith("bf16") for name in instructions),
        "cores": os.cpu_count(),
        "threads": THREADS,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "platform": platform.platform(),
    }


def get_document(measurements: Sequence[Contest], **facts: Any) -> dict[str, Any]:
    """The content of the file of results, with further facts such as the data set."""
    machine = describe_machine()
    made = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": machine["processor"],
        "instructions": machine["instructions"],
    }
    installed = {package.name: package.version for package in metadata.distributions()}
    versions = {name: installed.get(name) for name in PACKAGES}
    return {
        "date": made["date"],
        "machine": machine,
        "versions": {"python": platform.python_version(), **versions},
        **facts,
        "results": get_results(measurements),
        "measurements": {
            measurement.key: {
                **made,  # of each: a file can hold measurements of several days and machines
                "unit": measurement.unit,
                "competitors": {
                    name: {**get_spread(values), "rounds": list(values)}
                    for name, values in measurement.values.items()
                },
            }
            for measurement in measurements
        },
    }


def make_table(measurements: Sequence[Contest]) -> Table:
    """Values of all competitors, and below them the ratios; at most 80 columns wide."""
    table = Table(title="Measured", box=None, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    for heading in ("median", "least to most", "fastest"):
        table.add_column(heading, justify="right", no_wrap=True)
    for measurement in measurements:
        table.add_row(f"{measurement.key}, {measurement.unit}", style="bold")
        digits = 2 if measurement.unit == "s" else 0
        rows = [
            (NAMES.get(competitor, competitor), get_spread(values), digits)
            for competitor, values in measurement.values.items()
        ]
        rows += [
            (key.removeprefix(f"{measurement.key}."), ratio, 3)
            for key, ratio in measurement.compare().items()
        ]
        for name, spread, digits in rows:
            median, least, most, *fastest = (f"{value:,.{digits}f}" for value in spread.values())
            table.add_row(f"  {name}", median, f"{least} to {most}", *fastest)
    return table


def plot_speeds(measurements: Mapping[str, Mapping[str, Any]]) -> "Figure | None":
    """Bars of images/s for every competitor, one panel per size and batch; None without any.

    Args:
        measurements: Those in a document; those named `autoencoder.<size>.b<batch>` are drawn.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from cae.figures.style import STYLE

    panels = [key.split(".")[1:] for key in measurements if key.startswith("autoencoder.")]
    if not panels:
        return None
    drawn = [measurements[f"autoencoder.{size}.{batch}"] for size, batch in panels]
    processors = ", ".join(
        dict.fromkeys(", ".join([f["processor"], *f["instructions"][-1:]]) for f in drawn)
    )
    sizes, batches = (list(dict.fromkeys(names)) for names in zip(*panels, strict=True))
    with rc_context(STYLE):
        figure = Figure(figsize=(1.6 + 3.2 * len(sizes), 0.9 + 2.1 * len(batches)))
        axes = figure.subplots(len(batches), len(sizes), sharex="col", sharey=True, squeeze=False)
        for (size, batch), found in zip(panels, drawn, strict=True):
            ax = axes[batches.index(batch), sizes.index(size)]
            _draw_bars(found["competitors"], ax)
            ax.set_title(f"{size}, batch {batch[1:]}")
        for column in axes.T:  # which shares one scale, with room for the numbers
            fastest = max(bar.get_width() for ax in column for bar in ax.patches)
            column[0].set_xlim(0, 1.25 * fastest)
        axes[0, 0].invert_yaxis()  # shared by all: the first competitor on top
        figure.supxlabel(
            "images/s in the fastest round; the line reaches to the median", fontsize=9
        )
        figure.suptitle(f"Training autoencoders: {processors}", x=0.01, ha="left")
    return figure


def _draw_bars(competitors: Mapping[str, Mapping[str, Any]], ax: "Axes") -> None:
    from cae.figures.style import BLUE, GRAY, INK

    fastest = [speed["max"] for speed in competitors.values()]  # least disturbed by other programs
    to_median = [speed["max"] - speed["median"] for speed in competitors.values()]
    bars = ax.barh(
        [NAMES[name] for name in competitors],
        fastest,
        height=0.7,
        color=[
            (BLUE if name.startswith("ours") else GRAY, 0.55 if name.endswith("_bf16") else 1.0)
            for name in competitors
        ],
        xerr=[to_median, [0] * len(fastest)],
        error_kw={"ecolor": INK, "elinewidth": 1, "capsize": 2},
    )
    ax.bar_label(bars, fmt="{:,.0f}", padding=4, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)

"""Writes a run, a test, a recipe, a study, a chain of studies or label-efficiency as one HTML page.

python experiments.py report runs/research
python experiments.py report runs/2026-11-23T12-00-00Z-autoencoder_small --output small.html
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from cae import terminal
from cae.config.choices import PROGRAMS
from cae.errors import DataError
from cae.records.run import METRICS_FILE, PREDICTIONS_FILE, START_FILE, TRIALS_FILE
from cae.report.evaluation_page import describe_evaluation
from cae.report.label_page import describe_label_efficiency
from cae.report.pages import Page, check_page_path, write_page
from cae.report.recipe_page import describe_recipe
from cae.report.run_page import describe_run
from cae.report.study_page import describe_chain, describe_study

REPORT_FILE = "report.html"


def run(args: argparse.Namespace) -> int:
    """Writes the page of a folder; returns the exit code."""
    folder = Path(args.folder)
    if folder.name in ("", ".."):  # pages are titled with the name
        folder = folder.resolve()
    describe = _choose_page(folder)
    path = Path(args.output) if args.output else folder / REPORT_FILE
    check_page_path(path)
    terminal.announce("Writing the report")
    write_page(path, describe(folder))
    terminal.say(f"Report: {terminal.relative(path)}, {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _choose_page(folder: Path) -> Callable[[Path], Page]:
    """The kind of page for a folder, judged by the files in it.

    Raises:
        DataError: None of them belongs to a record.
    """
    if (folder / TRIALS_FILE).exists():
        return describe_study
    if (folder / "settings.json").exists() and (folder / "results.csv").exists():
        return describe_label_efficiency
    if (folder / "config.json").exists():
        return describe_run
    if (folder / METRICS_FILE).exists() and (folder / PREDICTIONS_FILE).exists():
        return describe_evaluation
    if any(folder.glob(f"*/{TRIALS_FILE}")):
        return describe_chain
    if any(path for kind in PROGRAMS for path in folder.glob(f"{kind}-seed*/{START_FILE}")):
        return describe_recipe
    raise DataError(
        folder,
        "must be the folder of a finished run, a recipe or a study",
        "none of their files in it" if folder.is_dir() else "no folder",
        "Name a folder in runs.",
    )

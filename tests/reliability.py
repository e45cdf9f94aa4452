"""Runs the tests behind every promise of docs/reliability.md and writes what they counted there.

python tests/reliability.py

Takes some minutes. Tests are counted by their cases; one that counts more than that tells it with
pytest's `record_property(what, number)`, and what has the same name is added up.
"""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- table: python tests/reliability.py -->\n", "<!-- end of table -->\n"
HEADER = "| promise | shown by | figure |\n|---|---|---|\n"


@dataclass(frozen=True)
class Promise:
    """What is promised, and the test (`file::Class::test`, without `tests/`) that shows it."""

    text: str
    test: str

    @property
    def row(self) -> str:
        """The table's line, up to its figure."""
        return f"| {self.text} | `{self.test}` |"


PROMISES = [
    Promise(
        "A loss that is not finite ends training; the best weights before it are kept",
        "test_faults.py::TestLossThatIsNotFinite",
    ),
    Promise(
        "A full disk leaves nothing half written under a final name, and earlier results as "
        "they were",
        "test_faults.py::TestFullDisk",
    ),
    Promise(
        "So does a folder that vanishes, becomes read-only, or belongs to somebody else",
        "test_faults.py::TestFolders",
    ),
    Promise(
        "A file that is deleted while it is read is named in one line",
        "test_faults.py::TestFilesThatVanish",
    ),
    Promise("Where memory runs out, one line says the batch size", "test_faults.py::TestMemory"),
    Promise(
        "Programs started at once with one name each have a run of their own",
        "test_faults.py::TestSameNameAtOnce",
    ),
    Promise("A clock that is moved back costs nothing", "test_faults.py::TestClock"),
    Promise(
        "Same seed, same machine: identical weights, history, metrics, predictions and figures",
        "test_reproducibility.py::TestSameSeedSameRun",
    ),
    Promise(
        "A run that was killed and resumed ends with the bits of one that never was, in both "
        "programs and phases, and when it dies while a checkpoint is written",
        "test_resume.py::test_kill_9",
    ),
    Promise(
        "What cannot be resumed to the same result (other data, an edited configuration, a "
        "damaged checkpoint) is refused in one line",
        "test_resume.py::test_a_changed_run_is_refused",
    ),
    Promise(
        "A model file never runs code, writes outside, or takes memory without bound",
        "test_hostile_models.py",
    ),
    Promise(
        "Damaged idx, gzip and JSON files end in one line, soon and in little memory",
        "fuzz/test_fuzz.py::test_fuzz",
    ),
    Promise(
        "So do damaged model files, whatever the HDF5 library makes of them",
        "fuzz/test_fuzz.py::test_damaged_hdf5",
    ),
    Promise("What is written is no formula and no code of a terminal", "test_strangers.py"),
    Promise(
        "Nothing is sent or fetched but a named data set",
        "test_strangers.py::test_nobody_calls_home",
    ),
]


def run_tests(promises: list[Promise], report: Path) -> int:
    """Runs the tests, slow ones included, and writes pytest's report as JUnit XML."""
    tests = [str(ROOT / "tests" / promise.test) for promise in promises]
    command = [sys.executable, "-m", "pytest", *tests, "-m", "slow or not slow"]
    # The newer family of the format has no place for properties.
    command += [f"--junitxml={report}", "-o", "junit_family=xunit1"]
    return subprocess.run(command, cwd=ROOT, env={"KILLS": "20", **os.environ}).returncode


def get_figure(promise: Promise, report: ElementTree.Element) -> str:
    """What the promise's tests counted, e.g. `12 passed, 20 kills`."""
    test = "tests." + promise.test.replace(".py", "").replace("::", ".").replace("/", ".")
    figures = Counter()
    for case in report.iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}".partition("[")[0]
        if f"{name}.".startswith(f"{test}."):
            figures["skipped" if case.find("skipped") is not None else "passed"] += 1
            for item in case.iter("property"):
                figures[item.get("name")] += int(item.get("value"))
    return ", ".join(f"{number:,} {what}" for what, number in figures.items())


def get_table(promises: list[Promise], report: ElementTree.Element) -> str:
    """The Markdown table, between its two markers."""
    rows = [f"{promise.row} {get_figure(promise, report)} |\n" for promise in promises]
    return BEGIN + HEADER + "".join(rows) + END


def main() -> int:
    """Replaces the table if all tests pass; returns pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        exit_code = run_tests(PROMISES, report)
        if exit_code == 0:
            page = PAGE.read_text(encoding="utf-8")
            before, _, rest = page.partition(BEGIN)
            after = rest.partition(END)[2]
            table = get_table(PROMISES, ElementTree.parse(report).getroot())
            PAGE.write_text(before + table + after, encoding="utf-8")
    return exit_code


if __name__ == "__main__":
    raise SystemExit(main())

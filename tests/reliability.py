"""Runs the tests behind every promise of docs/reliability.md and writes what they counted there.

    python tests/reliability.py                      everything, about 20 minutes on 2 cores
    python tests/reliability.py --only kill_9        promises with such a test; repeatable

Each section of the page is one run of pytest, which rewrites its rows at the end. Rows of other
sections, and of promises with a failed test, stay unchanged. The figure of a row counts test cases.
A test can count more with pytest's `record_property(name, number)`; numbers of the same name are
added up. The property `figure` is a text, taken as it is.
"""

import argparse
import datetime
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
BEGIN, END = "<!-- tables: python tests/reliability.py -->\n", "<!-- end of tables -->\n"
HEADER = "| promise | shown by | figure | on |\n|---|---|---|---|\n"
NEVER = "never run | |"
# Numbers of random attempts; CI makes fewer.
TRIES = {"KILLS": "20", "FUZZ_INPUTS": "1000000"}


@dataclass(frozen=True)
class Promise:
    """A promise, and the tests (`file::Class::test`, without `tests/`) that show it."""

    text: str
    tests: tuple[str, ...]

    @property
    def row(self) -> str:
        """The table's line, up to its figure."""
        return f"| {self.text} | {', '.join(f'`{test}`' for test in self.tests)} |"


SECTIONS = {
    "Resuming": (
        Promise(
            "`--resume RUN`, without any other flag, continues an interrupted run of either "
            "program in its own directory",
            ("programs/test_resume.py::test_a_run_is_resumed_in_its_directory",),
        ),
        Promise(
            "Everything continues: weights, optimizer (each of them), epoch and batch, phase, "
            "random state, learning-rate schedule, best weights, history",
            (
                "programs/test_resume.py::test_a_killed_training",
                "programs/test_resume.py::test_a_training_killed_at_its_very_end",
                "records/test_checkpoint.py::test_a_state_comes_back_to_the_bit",
            ),
        ),
        Promise(
            "The best value and the patience of early stopping are remembered",
            ("programs/test_resume.py::test_patience_is_remembered",),
        ),
        Promise(
            "A run killed with SIGKILL at random moments ends with the bits of an uninterrupted "
            "one, in both programs and phases; every second kill hits the write of a checkpoint",
            ("programs/test_resume.py::test_kill_9",),
        ),
        Promise(
            "A checkpoint follows every epoch, and every two minutes inside longer ones",
            ("programs/test_resume.py::test_a_checkpoint_every_epoch_and_every_two_minutes",),
        ),
        Promise(
            "Checkpoints cost less than 2 % of the training time; very short epochs are not saved"
            " one by one",
            (
                "programs/test_mnist.py::test_what_checkpoints_cost",
                "programs/test_resume.py::test_checkpoints_cost_little",
            ),
        ),
        Promise(
            "`--init-from MODEL` starts a new run from saved weights",
            ("programs/test_resume.py::TestInitFrom",),
        ),
        Promise(
            "A directory that is not empty is refused, and both remedies are named",
            ("programs/test_resume.py::TestRunDir",),
        ),
        Promise(
            "A run that cannot be resumed to the same result (an edited configuration, other "
            "data, another encoder, a damaged checkpoint) is refused in one line that names the "
            "difference",
            (
                "programs/test_resume.py::test_a_changed_run_is_refused",
                "programs/test_resume.py::test_other_data_are_refused",
                "programs/test_resume.py::test_an_encoder_that_changed_is_refused",
                "programs/test_resume.py::TestWhatCannotBeResumed",
                "records/test_checkpoint.py::test_another_identity_is_refused",
            ),
        ),
        Promise(
            "The first Ctrl-C or SIGTERM finishes the step, saves, prints the command that "
            "resumes and exits with 130 or 143; the second stops at once",
            (
                "programs/test_programs.py::TestSignals",
                "programs/test_resume.py::test_a_training_that_was_asked_to_stop",
            ),
        ),
    ),
    "Repeating": (
        Promise(
            "Same seed, same machine: identical weights, history, metrics, predictions and figures",
            ("programs/test_reproducibility.py::TestSameSeedSameRun",),
        ),
        Promise(
            "Validation splits and subsets of labelled images are functions of the seed",
            (
                "data/test_splits.py::TestSplitValidation::test_seed_decides",
                "data/test_splits.py::test_the_seed_decides",
            ),
        ),
        Promise(
            "The default seed is fixed and recorded",
            ("programs/test_reproducibility.py::test_the_default_seed_is_fixed_and_recorded",),
        ),
    ),
    "Faults": (
        Promise(
            "A loss that is NaN or infinite ends training; the best weights before it are kept, "
            "and one line names the epoch and the remedy",
            ("programs/test_faults.py::TestLossThatIsNotFinite",),
        ),
        Promise(
            "A full disk leaves no partial file under a final name; earlier results and the last "
            "checkpoint stay intact",
            (
                "programs/test_faults.py::TestFullDisk",
                "records/test_checkpoint.py::test_the_last_one_stays_when_the_disk_is_full",
            ),
        ),
        Promise(
            "The same holds for a folder that vanishes, becomes read-only, or belongs to another "
            "user",
            ("programs/test_faults.py::TestFolders",),
        ),
        Promise(
            "A file that is deleted while it is read is named in one line",
            ("programs/test_faults.py::TestFilesThatVanish",),
        ),
        Promise(
            "If memory runs out, one line names the batch size",
            ("programs/test_faults.py::TestMemory",),
        ),
        Promise(
            "Programs started at the same moment under the same name get a run each",
            ("programs/test_faults.py::TestSameNameAtOnce",),
        ),
        Promise(
            "A clock set back has no effect",
            ("programs/test_faults.py::TestClock",),
        ),
    ),
    "Untrusted files": (
        Promise(
            "A model file never runs code, reads or writes elsewhere, or takes unbounded memory: "
            "it is refused in one line with the reason",
            ("records/test_untrusted.py",),
        ),
        Promise(
            "Keras is pinned past the versions that fixed its published advisories",
            ("test_reliability.py::test_keras_is_pinned_past_the_advisories",),
        ),
        Promise(
            "Any bytes are an idx file or an error, any JSON is a configuration or an error",
            (
                "data/test_idx.py::test_any_bytes_give_an_array_or_a_data_error",
                "data/test_idx.py::test_absurd_sizes_allocate_nothing",
                "config/test_schema.py::test_any_json_is_a_configuration_or_a_clear_error",
            ),
        ),
        Promise(
            "Damaged idx, gzip, JSON and `.keras` files, and gzip bombs, cause no traceback, take"
            " less than 2 seconds and 100 MB, and leave no file",
            ("fuzz/test_fuzz.py::test_fuzz",),
        ),
        Promise(
            "Damaged `.h5` files end in one line too, whatever the HDF5 library does with them",
            ("fuzz/test_fuzz.py::test_damaged_hdf5",),
        ),
        Promise(
            "CSV files contain no formulas, and terminal output no control codes, from names in "
            "files",
            (
                "programs/test_untrusted_names.py::test_names_of_classes_stay_out_of_csv",
                "programs/test_untrusted_names.py::test_names_of_experiments_stay_out_of_csv",
                "programs/test_untrusted_names.py::test_everything_a_run_writes",
                "programs/test_untrusted_names.py::test_terminal_codes_are_shown_not_sent",
                "studies/test_compare.py::test_names_are_no_formulas",
            ),
        ),
        Promise(
            "HTML reports treat names as text, run no script and load nothing",
            (
                "report/test_report.py::test_names_are_text",
                "report/test_report.py::test_the_policy_forbids_scripts_and_network",
                "report/test_browser.py::test_names_that_are_markup_do_nothing_in_a_browser",
            ),
        ),
        Promise(
            "Only named data sets use the network",
            ("programs/test_untrusted_names.py::test_nobody_calls_home",),
        ),
    ),
}


def run_tests(promises: list[Promise], report: Path) -> int:
    """Runs the tests, slow ones included, and writes pytest's report as JUnit XML."""
    tests = [str(ROOT / "tests" / test) for promise in promises for test in promise.tests]
    command = [sys.executable, "-m", "pytest", "-v", *tests, "-m", "slow or not slow"]
    # The newer family of the format has no place for properties.
    command += [f"--junitxml={report}", "-o", "junit_family=xunit1"]
    return subprocess.run(command, cwd=ROOT, env={**TRIES, **os.environ}).returncode


def get_figure(promise: Promise, report: ElementTree.Element) -> str | None:
    """What the promise's tests counted, e.g. `12 passed, 20 kills`; None if one failed."""
    tests = tuple(_get_junit_name(test) for test in promise.tests)
    counts, texts = Counter(passed=0, skipped=0), []
    for case in report.iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}".partition("[")[0] + "."
        if not name.startswith(tests):
            continue
        if case.find("failure") is not None or case.find("error") is not None:
            return None
        counts["skipped" if case.find("skipped") is not None else "passed"] += 1
        for item in case.iter("property"):
            if item.get("name") == "figure":
                texts.append(item.get("value"))
            else:
                counts[item.get("name")] += int(item.get("value"))
    numbers = [f"{number:,} {what}" for what, number in counts.items() if number]
    return ", ".join(numbers + texts)


def _get_junit_name(test: str) -> str:
    """As in the report, with a dot at its end."""
    return "tests." + test.replace(".py", "").replace("::", ".").replace("/", ".") + "."


def add_figures(page: str, figures: dict[Promise, str]) -> str:
    """The page with new rows for these promises, and the rows that it has for all others."""
    before, _, rest = page.partition(BEGIN)
    old, _, after = rest.partition(END)
    today = datetime.datetime.now(datetime.timezone.utc).date()
    tables = []
    for section, promises in SECTIONS.items():
        tables.append(f"\n### {section}\n\n{HEADER}")
        for promise in promises:
            last = next((row for row in old.splitlines() if row.startswith(promise.row)), None)
            if promise in figures:
                last = f"{promise.row} {figures[promise]} | {today} |"
            tables.append(f"{last or f'{promise.row} {NEVER}'}\n")
    return f"{before}{BEGIN}{''.join(tables)}\n{END}{after}"


def run_section(promises: list[Promise]) -> int:
    """Runs the tests of promises and writes the rows of those that passed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        exit_code = run_tests(promises, report)
        if exit_code in (0, 1):  # otherwise pytest did not come to its end
            cases = ElementTree.parse(report).getroot()
            figures = {promise: get_figure(promise, cases) for promise in promises}
            page = PAGE.read_text(encoding="utf-8")
            passed = {promise: figure for promise, figure in figures.items() if figure}
            PAGE.write_text(add_figures(page, passed), encoding="utf-8")
    return exit_code


def choose(only: list[str]) -> dict[str, list[Promise]]:
    """The promises by section one of whose tests has one of these texts in its name."""
    chosen = {
        section: [
            promise
            for promise in promises
            if any(text in test for text in only for test in promise.tests)
        ]
        for section, promises in SECTIONS.items()
    }
    return {section: promises for section, promises in chosen.items() if promises}


def main(argv: list[str] | None = None) -> int:
    """Runs what was asked for; returns the first exit code of pytest that is not 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help="only promises one of whose tests has this in its name",
    )
    chosen = choose(parser.parse_args(argv).only or [""])
    if not chosen:
        parser.error("--only must be part of the name of a test in the page's tables")
    exit_code = 0
    for section, promises in chosen.items():
        print(f"{section}: {len(promises)} promises", flush=True)
        exit_code = run_section(promises) or exit_code
    return exit_code


if __name__ == "__main__":
    raise SystemExit(main())

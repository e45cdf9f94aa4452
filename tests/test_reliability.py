"""The page of promises: each is shown by tests that exist, and its tables are the script's.

What the tests counted is not compared: only running all of them tells.
"""

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import reliability
from packaging.version import Version
from reliability import BEGIN, END, HEADER, NEVER, PAGE, SECTIONS, Promise

ROOT = Path(__file__).parent.parent
PROMISES = [promise for promises in SECTIONS.values() for promise in promises]
REPORT = """<testsuites><testsuite>
  <testcase classname="tests.test_x.TestKills" name="test_one[a]">
    <properties><property name="kills" value="3"/></properties></testcase>
  <testcase classname="tests.test_x.TestKills" name="test_one[b]">
    <properties><property name="kills" value="1200"/></properties></testcase>
  <testcase classname="tests.test_x.TestKillsOthers" name="test_one">
    <properties><property name="kills" value="9"/></properties></testcase>
  <testcase classname="tests.test_x" name="test_two[a.b]">
    <properties><property name="figure" value="0.2 % of the time"/></properties></testcase>
  <testcase classname="tests.test_x" name="test_two[c]"><skipped message="no disk"/></testcase>
  <testcase classname="tests.test_y" name="test_three[a]"/>
  <testcase classname="tests.test_y" name="test_three[b]"><failure message="no"/></testcase>
</testsuite></testsuites>"""
KILLS = Promise("It lives", ("test_x.py::TestKills",))
DISKS = Promise("It writes", ("test_x.py::test_two", "test_x.py::TestKillsOthers"))
FAILS = Promise("It fails", ("test_x.py::TestKills", "test_y.py"))


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page with two promises that were never run."""
    path = tmp_path / "page.md"
    path.write_text(f"before\n{BEGIN}{END}after\n")
    monkeypatch.setattr(reliability, "PAGE", path)
    monkeypatch.setattr(reliability, "SECTIONS", {"One": (KILLS,), "Two": (DISKS, FAILS)})
    return path


@pytest.fixture
def tests_run(monkeypatch):
    """Pytest's exit code, with REPORT for a report; returns what it was called for."""
    called = []

    def arm(exit_code):
        def run(promises, report):
            called.append(promises)
            report.write_text(REPORT)
            return exit_code

        monkeypatch.setattr(reliability, "run_tests", run)
        return called

    return arm


def get_rows(page):
    return [row for row in page.read_text().splitlines() if row.startswith("| It")]


@pytest.mark.parametrize("test", [test for promise in PROMISES for test in promise.tests])
def test_every_promise_is_shown_by_tests(test):
    file, *names = test.split("::")
    node = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    for name in names:
        (node,) = [child for child in node.body if getattr(child, "name", None) == name]


def test_the_page_has_the_script_s_rows():
    """In its order; and figures after them that say more than nothing."""
    tables = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert re.findall("^### (.*)$", tables, re.MULTILINE) == list(SECTIONS)
    header = HEADER.splitlines()
    rows = [row for row in tables.splitlines() if row.startswith("|") and row not in header]
    for row, promise in zip(rows, PROMISES, strict=True):
        assert row.startswith(promise.row)
        figure = row.removeprefix(promise.row)
        assert re.fullmatch(r" [1-9][\d,]* passed(, [\d,.]+ [^|]+)* \| \d{4}-\d\d-\d\d \|", figure)


@pytest.mark.parametrize(
    ("promise", "figure"),
    [
        (KILLS, "2 passed, 1,203 kills"),
        (DISKS, "2 passed, 1 skipped, 9 kills, 0.2 % of the time"),
        (FAILS, None),
        (Promise("It was not run", ("test_z.py",)), ""),
    ],
    ids=lambda value: value.text if isinstance(value, Promise) else "",
)
def test_figures_are_added_up(promise, figure):
    """By name, over the cases of all tests, next to how many there were."""
    assert reliability.get_figure(promise, ElementTree.fromstring(REPORT)) == figure


def test_rows_of_what_passed_are_written(page, tests_run):
    """Section by section; the row of what failed stays as it was."""
    called = tests_run(1)
    assert reliability.main([]) == 1
    assert called == [[KILLS], [DISKS, FAILS]]
    kills, disks, fails = get_rows(page)
    assert re.fullmatch(rf"{re.escape(KILLS.row)} 2 passed, 1,203 kills \| 2\d{{3}}-.* \|", kills)
    assert disks.startswith(f"{DISKS.row} 2 passed, ")
    assert fails == f"{FAILS.row} {NEVER}"
    assert page.read_text().startswith(f"before\n{BEGIN}\n### One\n\n{HEADER}")
    assert page.read_text().endswith(f"{END}after\n")


def test_a_part_is_run_again(page, tests_run):
    """All other rows are kept."""
    old = page.read_text().replace(END, f"{KILLS.row} 7 passed | 2020-02-02 |\n{END}")
    page.write_text(old)
    called = tests_run(0)
    assert reliability.main(["--only", "two"]) == 0
    assert called == [[DISKS]]
    assert get_rows(page)[0] == f"{KILLS.row} 7 passed | 2020-02-02 |"
    assert get_rows(page)[1].startswith(f"{DISKS.row} 2 passed, ")


def test_nothing_is_written_of_a_run_without_an_end(page, tests_run):
    """Pytest ends with 2 after Ctrl-C, when some cases are missing."""
    before = page.read_text()
    tests_run(2)
    assert reliability.main([]) == 2
    assert page.read_text() == before


def test_a_part_that_does_not_exist(page, tests_run, capsys):
    called = tests_run(0)
    with pytest.raises(SystemExit, match="2"):
        reliability.main(["--only", "tset"])
    assert "must be part of the name of a test" in capsys.readouterr().err
    assert not called


def test_pytest_s_report_is_understood(tmp_path):
    """The names in its XML are those that figures are looked up by."""
    promise = Promise("", ("records/test_history.py",))
    report = tmp_path / "report.xml"
    assert reliability.run_tests([promise], report) == 0
    figure = reliability.get_figure(promise, ElementTree.parse(report).getroot())
    assert re.fullmatch(r"[1-9]\d* passed", figure)


def test_keras_is_pinned_past_the_advisories(record_property):
    """Past every version in the page's table; the older Keras of Python 3.10 past its own ones."""
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    older, newest = sorted(map(Version, re.findall(r"keras>=([\d.]+)", requirements)))
    table = PAGE.read_text(encoding="utf-8").partition("| advisory |")[2].partition("\n\n")[0]
    ended = [row.split("|")[3] for row in table.splitlines()[2:]]
    fixes = [Version(version) for version in re.findall(r"\b3\.[\d.]*\d", " ".join(ended))]
    assert len(fixes) > 10
    assert max(fixes) <= newest
    assert max(fix for fix in fixes if fix.release[:2] == older.release[:2]) <= older
    record_property("advisories", len(re.findall("CVE-|GHSA-", table)))

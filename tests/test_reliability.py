"""The page of promises: each is shown by a test that exists."""

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import reliability
from reliability import PROMISES, Promise, get_table

TESTS = Path(__file__).parent
REPORT = """<testsuites><testsuite>
  <testcase classname="tests.test_x.TestKills" name="test_one[a]">
    <properties><property name="kills" value="3"/></properties></testcase>
  <testcase classname="tests.test_x.TestKills" name="test_one[b]">
    <properties><property name="kills" value="1200"/></properties></testcase>
  <testcase classname="tests.test_x.TestKillsOthers" name="test_one">
    <properties><property name="kills" value="9"/></properties></testcase>
  <testcase classname="tests.test_x" name="test_two[a.b]"/>
  <testcase classname="tests.test_x" name="test_two[c]"><skipped message="no disk"/></testcase>
</testsuite></testsuites>"""


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.test)
def test_every_promise_is_shown_by_a_test(promise):
    file, *names = promise.test.split("::")
    node = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    for name in names:
        (node,) = [child for child in node.body if getattr(child, "name", None) == name]


def test_figures_are_added_up():
    """By name, over the cases of one test, next to how many there were."""
    promises = [Promise("It lives", "test_x.py::TestKills"), Promise("So", "test_x.py::test_two")]
    table = get_table(promises, ElementTree.fromstring(REPORT))
    assert table.splitlines()[3:-1] == [
        "| It lives | `test_x.py::TestKills` | 2 passed, 1,203 kills |",
        "| So | `test_x.py::test_two` | 1 passed, 1 skipped |",
    ]


def test_pytest_s_report_is_understood(tmp_path):
    """The names in its XML are those that figures are looked up by."""
    promise = Promise("", "test_history.py")
    report = tmp_path / "report.xml"
    assert reliability.run_tests([promise], report) == 0
    figure = reliability.get_figure(promise, ElementTree.parse(report).getroot())
    assert re.fullmatch(r"[1-9]\d* passed", figure)

"""The page of promises: each is shown by tests that exist."""

import ast
import re

import pytest
from conftest import ROOT
from packaging.version import Version
from reliability import PAGE, find_tests


@pytest.mark.parametrize("test", find_tests())
def test_every_promise_is_shown_by_tests(test):
    file, *names = test.split("::")
    node = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    for name in names:
        (node,) = [child for child in node.body if getattr(child, "name", None) == name]


def test_keras_is_pinned_past_the_advisories():
    """Past every version in the page's table."""
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    (pinned,) = map(Version, re.findall(r"keras>=([\d.]+)", requirements))
    table = PAGE.read_text(encoding="utf-8").partition("| advisory |")[2].partition("\n\n")[0]
    ended = [row.split("|")[3] for row in table.splitlines()[2:]]
    fixes = [Version(version) for version in re.findall(r"\b3\.[\d.]*\d", " ".join(ended))]
    assert len(fixes) > 10
    assert max(fixes) <= pinned

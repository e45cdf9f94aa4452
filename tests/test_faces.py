"""The faces for use from Python: the examples in their docstrings run."""

from textwrap import dedent

import model
import visualization


def get_example(module):
    lines = module.__doc__.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("Example"))
    return dedent("\n".join(lines[start + 1 :]))


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(get_example(model), names)
    assert names["reconstructions"].shape == (64, 8, 8, 1)
    exec(get_example(visualization), names)
    assert {path.name for path in tmp_path.iterdir()} == {"loss.png", "reconstructions.png"}

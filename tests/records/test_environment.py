"""What is recorded to repeat a run."""

import subprocess

from cae.records.environment import describe_environment


def test_environment_without_git(monkeypatch):
    def fail(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", fail)
    assert describe_environment("x", {}, "CPU", 0)["git_commit"] is None

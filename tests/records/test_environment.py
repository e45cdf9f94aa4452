"""What is recorded to repeat a run."""

import hashlib
import json
import subprocess

import numpy as np

from cae.data import idx
from cae.data.datasets import load_dataset
from cae.records.environment import describe_environment


def test_environment(tmp_path):
    idx.write_idx(tmp_path / "images", np.zeros((2, 3, 4), np.uint8))
    data = load_dataset(str(tmp_path / "images"))
    found = describe_environment("autoencoder.py -d x", {"training": data}, "CPU, 2 cores", 7)
    assert (found["device"], found["seed"]) == ("CPU, 2 cores", 7)
    training = found["data"]["training"]
    assert (training["shape"], training["dtype"]) == ([2, 3, 4, 1], "uint8")
    digest = hashlib.sha256((tmp_path / "images").read_bytes()).hexdigest()
    assert training["files"][0]["sha256"] == digest
    assert json.loads(json.dumps(found)) == found


def test_environment_without_git(monkeypatch):
    def fail(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", fail)
    assert describe_environment("x", {}, "CPU", 0)["git_commit"] is None

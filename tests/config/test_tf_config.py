"""Which worker this process is, by TF_CONFIG or Slurm."""

import pytest

from cae.config.tf_config import WorkerGroup, get_index, read_tf_config
from cae.errors import UsageError

PAIR = ("a:2222", "b:2222")


def test_alone_without_the_flag(monkeypatch):
    """TF_CONFIG that is set for something else changes nothing."""
    monkeypatch.setenv("TF_CONFIG", WorkerGroup(PAIR, 1).to_json())
    assert get_index(None) == get_index("all") == get_index(2) == 0
    assert get_index("workers") == 1
    assert read_tf_config() == WorkerGroup(list(PAIR), 1)


def test_slurm_says_which_task(monkeypatch):
    """Before TensorFlow is loaded, and TF_CONFIG goes before it."""
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert get_index("workers") == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "TF_CONFIG: must be JSON"),
        ('{"cluster": {"worker": []}, "task": {"type": "worker", "index": 0}}', "cluster.worker"),
        ('{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}', "worker\\[0\\]"),
        ('{"cluster": {"chief": ["a:1"]}, "task": {"type": "worker", "index": 0}}', "required"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}', "task.type"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "below 1"),
    ],
)
def test_wrong_tf_config(monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError, match=message) as caught:
        get_index("workers")
    assert "host1:2222" in str(caught.value)


def test_nobody_names_the_workers(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    with pytest.raises(UsageError, match=r"docs/parallel\.md"):
        get_index("workers")


def test_place_on_the_machine():
    """The second worker of a machine takes its second GPU."""
    addresses = ["a:1", "a:2", "b:1", "b:2"]
    assert [WorkerGroup(addresses, index).index_on_host for index in range(4)] == [0, 1, 0, 1]

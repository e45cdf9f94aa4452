"""Whatever is written is whole or not there, and a lock says who holds it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, fail_with

from cae.errors import DataError, UsageError
from cae.files import get_record, locked, shorten_name, write_csv, write_json, write_text

LOCK = """
import sys
from pathlib import Path
from cae.files import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_csv(tmp_path):
    """Columns keep the order of their first appearance; a missing value is an empty field."""
    write_csv(tmp_path / "x.csv", [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "val": "a,b"}])
    assert (tmp_path / "x.csv").read_bytes() == b'epoch,loss,val\n1,0.1,\n2,,"a,b"\n'


def test_names_are_shortened_between_letters():
    assert shorten_name("cat") == "cat"
    assert shorten_name("ж" * 100) == "ж" * 50
    assert shorten_name("a" + "ж" * 100) == "a" + "ж" * 49


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})

    monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
    with pytest.raises(UsageError, match=rf"{path}: .*No space left on device"):
        write_text(path, "x" * 1000)
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "remedy"), [(errno.EDQUOT, "space"), (errno.EROFS, "permissions")]
)
def test_only_a_full_disk_needs_space(tmp_path, monkeypatch, error, remedy):
    monkeypatch.setattr(os, "fsync", fail_with(error))
    with pytest.raises(UsageError, match=remedy):
        write_text(tmp_path / "x", "")
    monkeypatch.undo()
    with pytest.raises(UsageError, match="permissions"):
        write_text(tmp_path / "missing" / "x", "")


def test_a_record_of_a_file_that_vanished(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path / 'gone'}: .*No such file"):
        get_record(tmp_path / "gone")


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs Linux")
def test_a_lock_names_the_process_that_holds_it(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with other:
        assert other.stdout.readline() == b"locked\n"
        with (
            pytest.raises(UsageError, match=f"{tmp_path}: .*process {other.pid}"),
            locked(tmp_path),
        ):
            pass
        other.stdin.close()
    with locked(tmp_path):
        pass

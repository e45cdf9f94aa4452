"""The commands of `pip install -e .`, which work from any folder."""

import importlib
import json
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from conftest import ROOT

from cae.programs import start


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_module_at_the_top_is_installed(project):
    """But `make_configs`, which writes files of the repository."""
    modules = {path.stem for path in ROOT.glob("*.py")} - {"make_configs"}
    assert set(project["tool"]["setuptools"]["py-modules"]) == modules


def test_commands_are_programs(project):
    scripts = project["project"]["scripts"]
    assert scripts == {
        command: f"{Path(program).stem}:main" for program, command in start.COMMANDS.items()
    }
    for target in scripts.values():
        assert callable(importlib.import_module(target.split(":")[0]).main)


def test_commands_call_each_other(monkeypatch):
    assert start.name_command("classification.py") == ["python", "classification.py"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/cae-autoencoder"])
    assert start.name_command("classification.py") == ["cae-classify"]


def test_shipped_configurations_are_found_from_any_folder(tmp_path, launch, monkeypatch):
    """Unless the folder has one of that name."""
    monkeypatch.chdir(tmp_path)
    flags = ["-d", "digits", "-c", "configuration/autoencoder_small.json", "--print-config"]
    launch("autoencoder", *flags).ok()
    (tmp_path / "configuration").mkdir()
    (tmp_path / "configuration" / "autoencoder_small.json").write_text("{}")
    launch("autoencoder", *flags).refused(flags[3], "encoder_layers")


@pytest.mark.slow
def test_an_installed_copy_brings_its_configurations(tmp_path):
    """`pip install .` in an environment of its own, called in an empty folder."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", str(ROOT)]
    subprocess.run([python, *install], check=True, capture_output=True)
    libraries = os.pathsep.join(path for path in sys.path if "site-packages" in path)
    command = [tmp_path / "env" / "bin" / "cae-autoencoder", "--print-config", "-d", "digits"]
    command += ["-c", "configuration/autoencoder_small.json"]
    environment = {**os.environ, "PYTHONPATH": libraries}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["batch_size"] == 32

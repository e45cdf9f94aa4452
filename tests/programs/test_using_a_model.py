"""docs/using-a-model.md: every example runs as it stands."""

import importlib
import io
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from cae.data.idx import read_images

PAGE = (Path(__file__).parents[2] / "docs" / "using-a-model.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]


@pytest.fixture
def folder(tmp_path, monkeypatch, files, trained_autoencoder, trained_classifier):
    """The files that the examples name."""
    monkeypatch.chdir(tmp_path)
    for name in ("models", "new"):
        Path(name).mkdir()
    shutil.copy(trained_autoencoder.saved, "models/autoencoder.keras")
    shutil.copy(trained_classifier.saved, "models/classifier.keras")
    shutil.copy(files.test, "test-images.idx")
    shutil.copy(files.test_labels, "test-labels.idx")
    for number, image in enumerate(read_images(files.test)[:3]):
        Image.fromarray(image[..., 0]).save(f"new/{number}.png")


@pytest.mark.parametrize("line", COMMANDS)
def test_commands(folder, monkeypatch, capfd, line):
    before, _, command = line.rpartition(" | ")
    if before:
        paths = subprocess.run(shlex.split(before), capture_output=True, check=True).stdout
        given = io.TextIOWrapper(io.BufferedReader(io.BytesIO(paths)))
        monkeypatch.setattr("sys.stdin", given)
    python, program, *arguments = shlex.split(command)
    assert python == "python"
    assert importlib.import_module(Path(program).stem).main(arguments) == 0
    assert capfd.readouterr().out
    for name in re.findall(r"(?:--csv|--json|--html|--errors|--figures|-o) ([\w.]+)", line):
        assert Path(name).exists()


def test_python(folder, capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(snippet, "using-a-model.md", "exec"), {})
    assert "new/0.png" in capsys.readouterr().out

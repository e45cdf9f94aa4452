"""The environment of a run: what, beyond its configuration, is needed to repeat it."""

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from cae.data.datasets import Dataset

PACKAGES = ("tensorflow", "keras", "numpy", "matplotlib", "scikit-learn", "pydantic")


def describe_environment(
    command: str, datasets: dict[str, Dataset], device: str | None, seed: int | None
) -> dict[str, Any]:
    """The content of `environment.json`.

    Args:
        command: The command line, quoted for a shell.
        datasets: The data sets by role, such as `training` and `test`.
        device: The device that trains; None if several results have devices of their own.
        seed: The seed of every random number; None if there are several.
    """
    return {
        "command": command,
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seed": seed,
        "device": device,
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "git_commit": _find_commit(),
        "data": {
            role: {
                "name": data.name,
                "shape": list(data.images.shape),
                "dtype": str(data.images.dtype),
                "files": list(data.files),
            }
            for role, data in datasets.items()
        },
    }


def _find_commit() -> str | None:
    """The git commit of this code, with `-dirty` if files have been changed; None without git."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()

"""Runs the tests that docs/reliability.md names, with more random attempts than CI makes.

python tests/reliability.py                everything, about 20 minutes on 2 cores
python tests/reliability.py -k kill_9      further arguments are those of pytest
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reliability.md"
# How hard the tests try, unless the environment says otherwise.
TRIES = {
    "DISK_STEP": "32",
    "FUZZ_INPUTS": "1000000",
    "FUZZ_SECONDS": "2",
    "HDF5_INPUTS": "80",
    "KILLS": "20",
}


def find_tests() -> list[str]:
    """The tests that the page's first tables name, such as `file::Class::test` below `tests/`."""
    tables = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
    return re.findall(r"`([\w/]+\.py[\w:]*)`", tables)


if __name__ == "__main__":
    tests = [str(ROOT / "tests" / test) for test in find_tests()]
    command = [sys.executable, "-m", "pytest", *tests, "-m", "slow or not slow", *sys.argv[1:]]
    raise SystemExit(subprocess.run(command, cwd=ROOT, env={**TRIES, **os.environ}).returncode)

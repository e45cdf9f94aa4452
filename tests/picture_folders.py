"""Pictures in folders, and how tests load what is one data set."""

from pathlib import Path

from PIL import Image

from cae.data.datasets import load_dataset
from cae.data.sources import Reading

ALL = Reading(test_split=0)


def draw(path, value=0, size=(4, 4)):
    """Writes a PNG of one colour: a gray level, or RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(value, int) else "RGB", size, value).save(path)


def save_picture(path, image):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0]).save(path)


def fill(root, counts):
    """Class folders with so many pictures, each of another gray."""
    for level, (name, count) in enumerate(counts.items()):
        for number in range(count):
            draw(root / name / f"{number:03}.png", 50 * level + number)


def load(source, split="train", reading=ALL, **arguments):
    return load_dataset(str(source), split=split, reading=reading, **arguments)

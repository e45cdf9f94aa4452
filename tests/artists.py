"""Histories and images to draw, and what a figure shows, read from its artists."""

from unittest.mock import patch

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from cae.records.history import DENSE_ONLY, FULL, History

AUTOENCODER = {
    "encoder_layers": [["conv", 32, [3, 3]], ["pool", [2, 2]], ["conv", 64, [3, 3]]],
    "decoder_layers": [["conv", 64, [3, 3]], ["upSample", [2, 2]], ["conv", 32, [3, 3]]],
    "optimizer": ["adam", 0.001],
    "batch_size": 128,
    "loss": "binary_crossentropy",
    "early_stopping": None,
    "augmentation": {"rotation": 10, "shift": 0.1},
    "l2": 0.0,
}
CLASSIFIER = {
    "encoder_layers": "saved/small.keras",
    "dense_layers": [["dense", 64], ["drop", 0.5]],
    "optimizer": ["adam", 0.001],
}


def autoencoder_history(name="small", values=(0.3, 0.1, 0.2), *, validation=True, **info):
    rows = []
    for epoch, value in enumerate(values, 1):
        row = {"epoch": epoch, "phase": FULL, "loss": value, "mse": value / 10}
        if validation:
            row |= {"val_loss": value + 0.01, "val_mse": value / 10 + 0.001}
        rows.append(row)
    best = int(np.argmin(values)) + 1 if len(values) else None
    return History(name, "autoencoder", {**AUTOENCODER, **info}, rows, best, {"seconds": 12.5})


def classifier_history(name="head", dense_only=2, full=3, best_accuracy=0.99):
    rows = []
    for epoch in range(1, dense_only + full + 1):
        accuracy = best_accuracy - 0.01 * (dense_only + full - epoch)
        row = {"epoch": epoch, "phase": DENSE_ONLY if epoch <= dense_only else FULL}
        for prefix in ("", "val_"):
            row[f"{prefix}loss"] = 1 - accuracy
            for metric in ("accuracy", "precision", "recall", "f1"):
                row[prefix + metric] = accuracy
        rows.append(row)
    metrics = {"test_accuracy": 0.9876, "best_epoch": len(rows)}
    return History(name, "classifier", CLASSIFIER, rows, len(rows), metrics)


def make_images(count, height=8, width=8, channels=1):
    return np.random.default_rng(0).random((count, height, width, channels), np.float32)


def make_axes():
    return Figure(layout="constrained").subplots()


def drawn_texts(figure):
    """The texts that reach the canvas: an axis also keeps labels of ticks outside its limits."""
    drawn = []
    draw = Text.draw

    def record(text, renderer):
        if text.get_text().strip() and text.get_visible():
            drawn.append(text)
        draw(text, renderer)

    with patch.object(Text, "draw", record):
        FigureCanvasAgg(figure).draw()
    return drawn


def words(figure):
    """All texts of a figure, with plain spaces."""
    return "\n".join(text.get_text() for text in drawn_texts(figure)).replace("\xa0", " ")


def assert_readable(figure):
    """No text is cut off by the edge of the figure, and no text lies on another."""
    texts = drawn_texts(figure)
    assert texts
    # `Text`'s own extent: that of an annotation would include its arrow.
    extents = [Text.get_window_extent(text).extents for text in texts]
    boxes = np.add(extents, (1, 1, -1, -1))  # a pixel of tolerance
    for text, box in zip(texts, boxes, strict=True):
        inside = (box[:2] >= 0).all() and (box[2:] <= figure.bbox.size).all()
        assert inside, f"{text.get_text()!r} is cut off: {box} in {figure.bbox.size}"
    low, high = boxes[:, None, :2], boxes[None, :, 2:]
    overlap = (low < high).all(-1) & (low < high).all(-1).T & ~np.eye(len(boxes), dtype=bool)
    pairs = [(texts[i].get_text(), texts[j].get_text()) for i, j in np.argwhere(overlap)]
    assert not pairs, f"overlapping: {pairs[:3]}"


def drawn_images(figure):
    return [image for ax in figure.axes for image in ax.images]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]

"""Reconstructions and filters."""

import numpy as np
import pytest
from artists import (
    assert_readable,
    autoencoder_history,
    drawn_images,
    drawn_texts,
    make_images,
    words,
)

from cae.figures.images import (
    autoencoder_visualization,
    plot_filters,
    plot_views,
    plot_worst_reconstructions,
)


@pytest.mark.parametrize("count", [1, 3])
def test_autoencoder_figures_are_readable(count):
    histories = [autoencoder_history(f"autoencoder_{n}_small") for n in range(count)]
    images = make_images(3)
    figures = autoencoder_visualization(histories, images, [1 - images] * count)
    if count == 1:
        assert list(figures) == ["loss", "reconstructions"]
    else:
        keys = [f"{k}-{n + 1}" for n in range(count) for k in ("loss", "reconstructions")]
        assert list(figures) == [*keys, "comparison"]
    for key in list(figures)[-3:]:
        assert_readable(figures[key])


def test_reconstructions_stand_below_their_originals_with_their_error():
    images = np.zeros((2, 8, 8, 1), np.float32)
    outputs = images.copy()
    outputs[1] = 0.5
    figures = autoencoder_visualization([autoencoder_history()], images, [outputs])
    figure = figures["reconstructions"]
    text = words(figure).replace("\n", " ")
    assert "MSE 0.2500" in text
    assert "mean squared error 0.1250" in text
    original, reconstruction, difference = drawn_images(figure)[3:6]
    lefts = {image.get_extent()[0] for image in (original, reconstruction, difference)}
    tops = [image.get_extent()[3] for image in (original, reconstruction, difference)]
    assert len(lefts) == 1
    assert tops == sorted(tops)
    assert reconstruction.get_array().max() == 0.5
    assert difference.get_clim() == (0, 0.5)


def test_views_stand_below_their_originals():
    images = make_images(3)
    figure = plot_views([("original", images), ("augmented", 1 - images)], "Views")
    assert_readable(figure)
    assert words(figure).split() == ["original", "augmented", "Views"]
    original, changed = drawn_images(figure)[1], drawn_images(figure)[4]
    assert original.get_extent()[0] == changed.get_extent()[0]
    assert original.get_extent()[3] < changed.get_extent()[3]
    np.testing.assert_allclose(original.get_array() + changed.get_array(), 1)


@pytest.mark.parametrize(
    ("shape", "channels"), [((8, 8), 1), ((32, 32), 3), ((16, 20), 2), ((20, 16), 1)]
)
def test_images_of_any_shape_keep_their_proportions(shape, channels):
    images = make_images(3, *shape, channels)
    figure = plot_worst_reconstructions(images, 1 - images)
    assert_readable(figure)
    for image in drawn_images(figure)[:9]:
        left, right, bottom, top = image.get_extent()
        assert (bottom - top) / (right - left) == pytest.approx(shape[0] / shape[1])


@pytest.mark.parametrize(("channels", "shape"), [(1, (8, 8)), (2, (8, 8)), (3, (8, 8, 3))])
def test_channels_become_colour_or_their_mean(channels, shape):
    images = make_images(1, channels=channels)
    original = drawn_images(plot_worst_reconstructions(images, images))[0]
    expected = images[0] if channels == 3 else images[0].mean(axis=-1)
    assert original.get_array().shape == shape
    np.testing.assert_allclose(original.get_array(), expected)
    assert original.get_clim() == (0, 1)
    assert original.get_cmap().name == "gray"


def test_worst_reconstructions_come_worst_first():
    images = np.zeros((4, 8, 8, 1), np.float32)
    outputs = images + np.array([0.1, 0.4, np.nan, 0.2], np.float32).reshape(4, 1, 1, 1)
    figure = plot_worst_reconstructions(images, outputs, count=3)
    captions = [line for line in words(figure).split("\n") if line.startswith(("image", "MSE"))]
    assert captions == ["image 2", "MSE nan", "image 1", "MSE 0.1600", "image 3", "MSE 0.04000"]
    assert "3 of 4" in words(figure)


def test_worst_reconstructions_are_named_by_the_ends_of_their_names():
    """Without the suffix of a picture, but with the index in an array."""
    images = np.zeros((3, 8, 8, 1), np.float32)
    names = ["image 17", "pictures/of/cats/0042.png", "my/images.npy[512]"]
    figure = plot_worst_reconstructions(images, images + 0.5, image_names=names)
    captions = [text.get_text().split("\n")[0] for text in drawn_texts(figure)]
    assert {"image 17", "…/of/cats/0042", "…ages.npy[512]"} < set(captions)


def test_many_reconstructions_continue_below():
    images = make_images(25)
    figure = plot_worst_reconstructions(images, 1 - images, count=25)
    assert_readable(figure)
    assert len(drawn_images(figure)) == 3 * 25


@pytest.mark.parametrize(
    ("in_channels", "out_channels"), [(1, 1), (2, 4), (1, 130), (3, 4), (3, 130)]
)
def test_filters(in_channels, out_channels):
    kernels = np.random.default_rng(0).normal(size=(3, 5, in_channels, out_channels))
    figure = plot_filters(kernels)
    assert_readable(figure)
    (sheet,) = figure.axes
    bars = sheet.child_axes
    assert len(sheet.images) == out_channels
    assert f"{out_channels} filters" in words(figure).replace("\n", " ")
    first = sheet.images[0].get_array()
    if in_channels == 3:
        assert not bars
        np.testing.assert_allclose(first, 0.5 + kernels[..., 0] / (2 * np.abs(kernels).max()))
    else:
        assert len(bars) == 1
        np.testing.assert_allclose(first, kernels[..., 0].mean(axis=-1))
        low, high = sheet.images[0].get_clim()
        assert -low == high == np.abs(kernels.mean(axis=2)).max()

"""Encodings in two dimensions."""

import matplotlib
import numpy as np
import pytest
from artists import assert_readable, make_axes

from cae.errors import DataError
from cae.figures.encodings import encodings_visualization, plot_encodings, project_encodings
from cae.figures.style import GRAY


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_few_images_are_shown_by_their_principal_components():
    """Points on a line in four dimensions keep their distances, and need one component."""
    encodings = np.outer(np.arange(5), [1, 1, 1, 1]).reshape(5, 2, 2)
    points = project_encodings(encodings)
    assert points.dtype == np.float32
    np.testing.assert_allclose(np.abs(np.diff(points[:, 0])), 2, rtol=1e-5)
    np.testing.assert_allclose(points[:, 1], 0, atol=1e-5)


def test_projection_keeps_clusters_apart_and_repeats_itself():
    rng = np.random.default_rng(0)
    encodings = rng.normal(size=(60, 3, 3, 2)) + np.repeat([0, 50], 30).reshape(60, 1, 1, 1)
    points = project_encodings(encodings)
    assert points.shape == (60, 2)
    np.testing.assert_array_equal(points, project_encodings(encodings))
    nearest = [np.argsort(np.linalg.norm(points - point, axis=1))[1] for point in points]
    assert all((near < 30) == (index < 30) for index, near in enumerate(nearest))


@pytest.mark.parametrize("shape", [(1, 4), (40, 4), (2, 3, 3, 1)])
def test_a_collapsed_encoder_gives_one_point(shape):
    np.testing.assert_array_equal(project_encodings(np.ones(shape)), np.zeros((shape[0], 2)))


@pytest.mark.parametrize("count", [3, 40])
def test_encodings_of_one_number_each(count):
    points = project_encodings(np.arange(count).reshape(count, 1))
    assert points.shape == (count, 2)
    assert np.isfinite(points).all()


def test_what_is_not_finite_is_refused():
    with pytest.raises(DataError, match="NaN"):
        project_encodings(np.array([[1.0, np.nan], [0, 1]]))


@pytest.mark.parametrize(("num_classes", "name"), [(2, "{}"), (10, "a longer name {}")])
def test_every_class_has_a_look_of_its_own_and_a_place_in_the_legend(num_classes, name):
    encodings = np.random.default_rng(0).normal(size=(124, 3))
    names = [name.format(number) for number in range(num_classes)]
    figure = encodings_visualization(encodings, np.arange(124) % num_classes, names)
    assert_readable(figure)
    (ax,) = figure.axes
    assert legend_texts(ax) == names
    looks = {
        (tuple(marks.get_facecolor()[0]), marks.get_paths()[0].vertices.tobytes())
        for marks in ax.collections
    }
    assert len(looks) == num_classes
    assert len({look[0] for look in looks}) == num_classes  # colour alone tells them apart
    width, height = ax.get_window_extent().size
    assert 0.9 < width / height < 1.3


@pytest.mark.parametrize(
    ("num_classes", "name"), [(11, "{}"), (62, "a longer name {}"), (62, "имя {}"), (90, "{}")]
)
def test_each_of_many_classes_stands_out_in_a_plot_of_its_own(num_classes, name):
    encodings = np.random.default_rng(0).normal(size=(2 * num_classes, 3))
    names = [name.format(number) for number in range(num_classes)]
    labels = np.arange(len(encodings)) % num_classes
    encodings, labels = np.pad(encodings, ((0, 1), (0, 0))), np.append(labels, -1)
    figure = encodings_visualization(encodings, labels, names)
    assert_readable(figure)
    panels = [ax for ax in figure.axes if ax.lines]
    assert len(panels) == min(num_classes, 64)  # room is limited
    for ax in panels:
        others, mine = ax.lines
        assert len(mine.get_xdata()) == 2
        assert len(others.get_xdata()) == len(encodings) - 2


@pytest.mark.parametrize(("count", "method"), [(5, "Principal components"), (40, "t-SNE")])
def test_the_title_names_the_method(count, method):
    ax = plot_encodings(np.zeros((count, 2)), None, [], make_axes())
    assert ax.get_title(loc="left").startswith(method)


@pytest.mark.parametrize("others", ["unseen", "no label"])
def test_images_of_no_known_class_are_gray(others):
    ax = make_axes()
    assert plot_encodings(np.eye(2), np.array([0, -1]), ["cat"], ax, others) is ax
    assert sorted(legend_texts(ax)) == ["cat", others]
    unseen = ax.collections[0].get_facecolor()[0, :3]
    np.testing.assert_allclose(unseen, matplotlib.colors.to_rgb(GRAY))


def test_without_labels_all_points_are_alike():
    ax = plot_encodings(np.zeros((5, 2)), None, [], make_axes())
    (points,) = ax.collections
    assert len(points.get_offsets()) == 5
    assert ax.get_legend() is None

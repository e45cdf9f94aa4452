"""Experiments, studies and numbers of labels compared."""

import numpy as np
import pytest
from artists import (
    assert_readable,
    autoencoder_history,
    classifier_history,
    make_axes,
    tick_labels,
    words,
)

from cae.config.choices import METHODS, RECIPE
from cae.figures.comparisons import compare_visualization, plot_comparison, plot_label_efficiency


def ranked_values(figure):
    return [float(line.get_xdata()[0]) for line in figure.axes[-1].lines]


def test_autoencoders_are_ranked_by_their_best_validation_losses():
    histories = [
        autoencoder_history("middle", [0.4, 0.2]),
        autoencoder_history("best", [0.3, 0.1, 0.5]),
        autoencoder_history("worst", [0.9]),
    ]
    figure = plot_comparison(histories)
    curves, ranking = figure.axes
    assert tick_labels(ranking.yaxis) == ["2 · best", "1 · middle", "3 · worst"]
    assert ranked_values(figure) == pytest.approx([0.11, 0.21, 0.91])
    assert ranking.get_xlabel() == "best validation loss"
    np.testing.assert_allclose(curves.lines[0].get_ydata(), [0.41, 0.21])
    looks = [(line.get_color(), line.get_marker()) for line in curves.lines]
    assert len(set(looks)) == 3
    best = ranking.lines[0]
    assert (best.get_color(), best.get_marker()) == looks[1]


@pytest.mark.parametrize("different", [{"loss": "mse"}, {"l2": 0.01}])
def test_losses_of_different_kinds_are_compared_by_squared_error(different):
    histories = [autoencoder_history("a"), autoencoder_history("b", [0.6], **different)]
    figure = plot_comparison(histories)
    assert ranked_values(figure) == pytest.approx([0.011, 0.061])
    assert "by mean squared error" in figure.get_suptitle()
    assert figure.axes[-1].get_xlabel() == "best validation mean squared error"


def test_without_validation_data_training_losses_are_compared():
    histories = [autoencoder_history("a"), autoencoder_history("b", [0.6], validation=False)]
    figure = plot_comparison(histories)
    assert ranked_values(figure) == pytest.approx([0.1, 0.6])
    assert figure.axes[-1].get_xlabel() == "best training loss"


def test_only_the_best_of_many_experiments_are_in_colour():
    figure = plot_comparison([autoencoder_history(str(n), [0.1 + n / 100]) for n in range(25)])
    colors = [line.get_color() for line in figure.axes[0].lines]
    assert len(set(colors[:10])) == 10
    assert len(set(colors[10:])) == 1


def test_classifiers_are_ranked_by_accuracy():
    histories = [classifier_history("a", best_accuracy=0.9), classifier_history("b")]
    loss, accuracy, ranking = plot_comparison(histories).axes
    assert loss.get_ylabel().startswith("loss per image")
    assert accuracy.get_ylabel() == "accuracy (0 to 1)"
    assert tick_labels(ranking.yaxis) == ["2 · b", "1 · a"]


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_a_failed_training_comes_last(values):
    figure = plot_comparison([autoencoder_history("failed", values), autoencoder_history("good")])
    assert_readable(figure)
    assert tick_labels(figure.axes[-1].yaxis) == ["2 · good", "1 · failed"]
    assert "no finite value" in words(figure)


@pytest.mark.parametrize("values", [[0.05, np.nan], [np.inf, 0.05]])
def test_a_training_that_was_finite_once_counts(values):
    """Its best finite value is ranked."""
    figure = plot_comparison([autoencoder_history("good"), autoencoder_history("once", values)])
    assert_readable(figure)
    assert tick_labels(figure.axes[-1].yaxis) == ["2 · once", "1 · good"]
    assert ranked_values(figure) == pytest.approx([0.06, 0.11])
    assert "no finite value" not in words(figure)


def test_a_long_name_is_shortened():
    names = ["autoencoder_large_" + "with_every_variation_" * 12, "another_name_" * 20]
    assert_readable(plot_comparison([autoencoder_history(name) for name in names]))


@pytest.mark.parametrize("power", [1, 3])
def test_costs_of_a_whole_study_are_readable(power):
    """Long names, and sizes from a thousand to ten million."""
    names = [f"large_batch_normalization_{number}" for number in range(24)]
    runs = [[autoencoder_history(name)] for name in names]
    for number, (history,) in enumerate(runs, 1):
        history.metrics = {"parameters": 1000 * number**power, "seconds": 30 + number}
    values = [[0.1 / number] for number in range(1, 25)]
    assert_readable(compare_visualization(runs, names, values, [None] * 24, "val_mse")["costs"])


def test_an_interval_that_reaches_the_limit_is_explained():
    names = ["batch_normalization_1", "batch_normalization_2"]
    runs = [[autoencoder_history(name) for _ in range(2)] for name in names]
    values, intervals = [[0.1, 0.3], [0.2, 0.5]], [(0.0, 0.8), (0.1, 0.9)]
    figure = compare_visualization(runs, names, values, intervals, "val_mse")["final_values"]
    assert_readable(figure)
    assert "arrow" in words(figure)


@pytest.mark.parametrize("has_parameters", [True, False])
def test_costs_name_the_best_configurations_and_the_pareto_front(has_parameters):
    """Twelve configurations, the best first; the last is the smallest, the second the fastest."""
    histories = [autoencoder_history(str(n)) for n in range(12)]
    for number, history in enumerate(histories):
        history.metrics = {"seconds": 5}
        if has_parameters:
            seconds = 1 if number == 1 else 5
            history.metrics = {"parameters": 100 - number, "seconds": seconds}
    values, names = [[0.1 + number] for number in range(12)], list("abcdefghijkl")
    runs = [[history] for history in histories]
    figure = compare_visualization(runs, names, values, [None] * 12, "val_mse")["costs"]
    assert_readable(figure)
    parameters, seconds = figure.axes
    smallest, fastest = list(range(89, 101)), [[1, 1.1], [5, 0.1]]
    listed = [f"{n} · {name}" for n, name in enumerate(names, 1)]
    if not has_parameters:
        smallest, fastest, listed = [], [[5, 0.1]], [*listed[:10], "2 others"]
    assert list(parameters.lines[0].get_xdata()) == smallest
    assert parameters.xaxis.get_major_formatter()(1_000_000) == "1,000,000"
    np.testing.assert_allclose(seconds.lines[0].get_xydata(), fastest)
    assert [text.get_text() for text in figure.legends[0].get_texts()][1:] == listed


def marks_of(ax, marker):
    return [y for line in ax.lines if line.get_marker() == marker for y in line.get_ydata()]


def test_label_efficiency_shows_means_and_intervals_in_percent():
    """One seed has no interval; an interval that reaches 0 is cut, with an arrow for a cap."""
    curves = {
        "pretrained": [(10, 0.5, 0.4, 0.6), (100, 0.1, 0, 0.3)],
        "from scratch": [(10, 0.6, np.nan, np.nan), (100, 0.05, 0.04, 0.06)],
    }
    ax = make_axes()
    assert plot_label_efficiency(curves, ax) is ax
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert tick_labels(ax.xaxis) == ["10", "100"]
    (first, _, (bars,)), (second, _, (other_bars,)) = ax.containers
    assert first.get_xdata() == pytest.approx([10, 100], rel=0.05)
    assert first.get_ydata() == pytest.approx([50, 10])
    assert second.get_ydata() == pytest.approx([60, 5])
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [pytest.approx([40, 60]), pytest.approx([2, 30])]  # half of the lowest end
    assert not len(other_bars.get_segments()[0])
    assert marks_of(ax, "v") == pytest.approx([2])
    (legend,) = ax.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(curves)
    assert_readable(ax.figure)


@pytest.mark.parametrize(
    ("bounds", "has_intervals", "has_arrows"),
    [((np.nan, np.nan), False, False), ((0.1, 0.3), True, False), ((0, 0.4), True, True)],
)
def test_the_title_explains_what_is_drawn(bounds, has_intervals, has_arrows):
    ax = make_axes()
    plot_label_efficiency({"pretrained": [(10, 0.2, *bounds)]}, ax)
    assert ("interval" in ax.get_title(loc="left"), "arrow" in ax.get_title(loc="left")) == (
        has_intervals,
        has_arrows,
    )


def test_intervals_of_errors_stay_between_0_and_100_percent():
    """On a linear axis: open ends at 0 and 100 have arrows, others caps."""
    ax = make_axes()
    plot_label_efficiency({"pretrained": [(10, 0.8, 0.5, 1), (100, 0.196, 0, 0.787)]}, ax)
    assert ax.get_yscale() == "linear"
    ((_, _, (bars,)),) = ax.containers
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [pytest.approx([50, 100]), pytest.approx([0, 78.7])]
    assert (marks_of(ax, "v"), marks_of(ax, "^")) == ([0], [100])
    assert marks_of(ax, "_") == pytest.approx([50, 78.7])
    assert_readable(ax.figure)


def test_the_recipe_stands_out_of_many_methods():
    """Each has a look of its own, and the legend lies below the axes."""
    ax = make_axes()
    plot_label_efficiency({name: [(10, 0.5, 0.4, 0.6)] for name in METHODS.values()}, ax)
    lines = {container.get_label(): container[0] for container in ax.containers}
    width = {name: line.get_linewidth() for name, line in lines.items()}
    recipe = width.pop(METHODS[RECIPE])
    assert recipe > max(width.values())
    looks = [(x.get_color(), x.get_marker(), x.get_linestyle()) for x in lines.values()]
    assert len(set(looks)) == len(METHODS)
    assert_readable(ax.figure)


def test_label_efficiency_draws_an_error_of_zero():
    ax = make_axes()
    plot_label_efficiency({"perfect": [(10, 0.0, 0.0, 0.0), (20, 0.0, np.nan, np.nan)]}, ax)
    assert ax.get_yscale() == "linear"
    assert marks_of(ax, "v") == []

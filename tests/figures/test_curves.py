"""Curves of one training, and the record beside them."""

import numpy as np
import pytest
from artists import assert_readable, autoencoder_history, classifier_history, make_axes, words

from cae.figures.curves import curve_figures, plot_curves, plot_history


def labels_of(ax):
    return [line.get_label() for line in ax.lines]


def test_training_is_dashed_and_validation_solid():
    ax = make_axes()
    assert plot_curves(autoencoder_history(), "loss", ax) is ax
    training, validation, kept = ax.lines
    assert labels_of(ax) == ["training", "validation", "weights kept (epoch 2)"]
    assert (training.get_linestyle(), validation.get_linestyle()) == ("--", "-")
    assert training.get_color() == validation.get_color()
    np.testing.assert_allclose(training.get_ydata(), [0.3, 0.1, 0.2])
    np.testing.assert_allclose(validation.get_xydata(), [[1, 0.31], [2, 0.11], [3, 0.21]])
    np.testing.assert_allclose(kept.get_xydata(), [[2, 0.11]])
    assert ax.get_xlabel() == "epoch"
    assert ax.get_ylabel() == "loss per pixel (binary crossentropy)"


def test_without_validation_data_training_values_are_marked():
    ax = plot_curves(autoencoder_history(validation=False), "loss", make_axes())
    assert labels_of(ax) == ["training", "weights kept (epoch 2)"]
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[2, 0.1]])


@pytest.mark.parametrize(("dense_only", "full"), [(2, 3), (3, 0), (0, 3)])
def test_a_line_marks_the_end_of_the_first_of_two_phases(dense_only, full):
    ax = plot_curves(classifier_history(dense_only=dense_only, full=full), "accuracy", make_axes())
    lines = [line for line in ax.lines if "encoder frozen" in line.get_label()]
    assert [line.get_xdata() for line in lines] == ([[2.5, 2.5]] if dense_only and full else [])
    assert ax.get_ylabel() == "accuracy (0 to 1)"


def test_a_single_epoch_is_visible():
    ax = plot_curves(autoencoder_history(values=[0.1]), "loss", make_axes())
    assert {line.get_marker() for line in ax.lines} == {"o"}
    assert [tick for tick in ax.get_xticks() if 0.5 <= tick <= 1.5] == [1]


@pytest.mark.parametrize("num_epochs", [2, 3, 7, 50, 400])
def test_epoch_ticks_are_integers(num_epochs):
    history = autoencoder_history(values=np.linspace(0.2, 0.1, num_epochs))
    ticks = plot_curves(history, "loss", make_axes()).get_xticks()
    assert all(tick == int(tick) for tick in ticks)


def test_losses_over_more_than_a_decade_get_a_logarithmic_axis_that_says_so():
    near = plot_curves(autoencoder_history(values=[0.5, 0.1]), "loss", make_axes())
    far = plot_curves(autoencoder_history(values=[5.0, 0.1]), "loss", make_axes())
    assert (near.get_yscale(), far.get_yscale()) == ("linear", "log")
    assert "log scale" in far.get_ylabel()
    assert "0.2" in words(far.figure).split("\n")


@pytest.mark.parametrize("values", [[], [np.nan, np.nan], [0.1, np.nan], [np.inf, 0.1]])
def test_a_failed_training_can_be_drawn(values):
    figure = plot_history(autoencoder_history(values=values))
    assert_readable(figure)
    is_lost = bool(values) and not np.isfinite(values).any()
    assert words(figure).count("no finite value") == 2 * is_lost


def test_the_record_of_an_autoencoder():
    text = words(plot_history(autoencoder_history("my run", early_stopping=5)))
    # Validation loss of the epoch kept, and validation error of the last epoch.
    values = ("epoch 2 (kept)", "0.1100", "epoch 3 (last)", "0.02100", "12.50")
    layers = "conv 32 3×3 → pool 2×2 → conv 64 3×3"
    settings = ("optimizer: adam, 0.001;", "early stopping: 5;", "rotation 10, shift 0.1")
    for expected in ("my run", layers, *values, *settings):
        assert expected in text
    assert "early stopping" not in words(plot_history(autoencoder_history()))


def test_long_hyperparameters_break_between_words():
    changes = {"rotation": 20, "shear": 15, "zoom": 0.2, "shift": 0.12, "noise": 0.2}
    text = words(plot_history(autoencoder_history(denoise=changes, augmentation=changes)))
    found = " ".join(text.replace("\xa0", " ").split())
    assert found.count("rotation 20, shear 15, zoom 0.2, shift 0.12, noise 0.2") == 2


def titles_of(figure):
    return [title for ax in figure.axes if (title := ax.get_title(loc="left"))]


def test_the_loss_stands_beside_what_says_how_good_the_model_is():
    assert titles_of(plot_history(autoencoder_history())) == ["Loss", "Mean squared error"]
    assert titles_of(plot_history(classifier_history())) == ["Loss", "Accuracy"]


def test_macro_f1_is_drawn_where_it_differs_from_the_accuracy():
    history = classifier_history()
    history.epochs[-1]["val_f1"] -= 0.03
    assert titles_of(plot_history(history)) == ["Loss", "Accuracy", "Macro F1"]


def test_macro_f1_of_epochs_that_were_not_kept_does_not_count():
    history = classifier_history()
    history.best_epoch = 2
    history.epochs[0]["val_f1"] -= 0.03
    assert titles_of(plot_history(history)) == ["Loss", "Accuracy"]


def test_the_record_of_a_classifier():
    figure = plot_history(classifier_history())
    assert_readable(figure)
    text = words(figure)
    for part in ("encoder of small.keras", "dense 64 → drop 0.5", "test accuracy", "0.9876"):
        assert part in text
    (legend,) = (legend for part in figure.subfigs for legend in part.legends)
    labels = [label.get_text() for label in legend.get_texts()]
    assert labels[:2] == ["training", "validation"]
    assert len(labels) == len(set(labels)) == 4


def test_the_record_leaves_out_the_ends_of_intervals():
    """Their long names would push the columns apart."""
    history = classifier_history()
    history.metrics |= {"test_macro_f1": 0.9, "test_macro_f1_low": 0.85, "test_macro_f1_high": 0.95}
    text = words(plot_history(history))
    assert "test macro f1" in text
    assert "f1 low" not in text and "0.8500" not in text


def test_a_long_name_is_wrapped_and_shortened():
    name = "autoencoder_large_" + "with_every_variation_" * 12
    figure = plot_history(autoencoder_history(f"{name}end"))
    assert_readable(figure)
    title = figure.get_suptitle().split("\n")
    assert 1 < len(title) <= 3
    assert title[-1].endswith("end")


def test_a_name_is_not_taken_for_mathematics():
    assert r"$\frac$" in words(plot_history(autoencoder_history(r"$\frac$")))


def test_a_figure_per_metric():
    assert list(curve_figures(autoencoder_history())) == ["loss", "mse"]
    figures = curve_figures(classifier_history())
    assert list(figures) == ["loss", "accuracy"]
    for figure in figures.values():
        assert_readable(figure)

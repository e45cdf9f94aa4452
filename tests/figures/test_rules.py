"""Rules for all figures."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from artists import autoencoder_history, classifier_history, make_images
from conftest import run_python

from cae.figures.classes import classifier_loss_visualization, classifier_prediction_visualization
from cae.figures.encodings import encodings_visualization
from cae.figures.images import autoencoder_visualization
from cae.figures.windows import show_windows


@pytest.fixture
def figures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = make_images(2)
    histories = [autoencoder_history("a"), autoencoder_history("b")]
    heads = [classifier_history("a"), classifier_history("b")]
    return {
        **autoencoder_visualization(histories, images, [images] * 2),
        **classifier_loss_visualization(heads, [None, None]),
        **classifier_prediction_visualization(images, np.arange(2), np.eye(2), "ab"),
        "encodings": encodings_visualization(np.eye(2), None, []),
    }


def test_figures_are_neither_open_nor_saved(figures, tmp_path):
    """They are not registered with pyplot: no caller has to close them."""
    assert figures and plt.get_fignums() == [] and not list(tmp_path.iterdir())


def test_settings_of_the_caller_stay_as_they_are(request):
    before = dict(matplotlib.rcParams)
    assert request.getfixturevalue("figures")
    assert dict(matplotlib.rcParams) == before


def test_windows_open_where_there_is_a_display(figures, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.extend(map(plt.figure, plt.get_fignums())))
    show_windows(figures.values())
    assert shown == []
    monkeypatch.setattr(plt, "get_backend", lambda: "TkAgg")
    show_windows(figures.values())
    assert shown == list(figures.values())
    plt.close("all")


def test_scikit_learn_is_loaded_only_when_it_is_needed():
    code = "import sys, visualization; print([m for m in ('sklearn', 'keras') if m in sys.modules])"
    done = run_python("-c", code)
    assert done.stdout == "[]\n", done.stderr

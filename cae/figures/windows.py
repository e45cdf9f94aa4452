"""Figures on the screen, and the end of their life."""

from collections.abc import Iterable

import matplotlib.pyplot as plt
from matplotlib.backends import BackendFilter, backend_registry
from matplotlib.figure import Figure

from cae import terminal


def show_windows(figures: Iterable[Figure]) -> None:
    """Opens the figures where there is a display, waits until they are closed, and frees them."""
    interactive = backend_registry.list_builtin(BackendFilter.INTERACTIVE)
    if plt.get_backend().lower() in (name.lower() for name in interactive):
        terminal.say("Close the windows to continue.")
        plt.show()
    close(figures)


def close(figures: Iterable[Figure]) -> None:
    """Frees the memory of figures."""
    for figure in figures:
        plt.close(figure)

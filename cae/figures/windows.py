"""Windows: the only place where figures are shown."""

from collections.abc import Iterable

import matplotlib.pyplot as plt
from matplotlib.backends import BackendFilter, backend_registry
from matplotlib.figure import Figure

from cae import terminal


def show_windows(figures: Iterable[Figure]) -> None:
    """Opens the figures in windows where there is a display, and waits until they are closed."""
    interactive = backend_registry.list_builtin(BackendFilter.INTERACTIVE)
    if plt.get_backend().lower() not in (name.lower() for name in interactive):
        return
    for figure in figures:
        # Gives an existing figure a window; from Matplotlib 3.11 on plt.figure(figure) does so too.
        plt.figure(FigureClass=lambda *_, existing=figure, **__: existing)
    terminal.say("Close the windows to continue.")
    plt.show()

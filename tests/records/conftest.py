"""A harmless model, and the traps that no other may spring."""

import pytest


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """A harmless model in both formats."""
    import keras

    inputs = keras.Input((8, 8, 1))
    encoder = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3, activation="relu", name="first")],
        name="encoder",
    )
    model = keras.Model(inputs, keras.layers.Flatten()(encoder(inputs)))
    model.compile("adam", "mse")
    folder = tmp_path_factory.mktemp("plain")
    for suffix in (".keras", ".h5"):
        model.save(folder / f"plain{suffix}")
    return folder / "plain"


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """Arms all traps and returns the mark that any of them would leave."""
    import keras
    from model_files import TRAP, Trap

    mark = tmp_path / "mark"
    monkeypatch.setattr(Trap, "mark", mark, raising=False)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    (tmp_path / "modules").mkdir()
    source = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
    (tmp_path / "modules" / "spy.py").write_text(source)
    objects = keras.saving.get_custom_objects()
    monkeypatch.setitem(objects, TRAP, Trap)
    monkeypatch.setitem(objects, "Trap", Trap)
    monkeypatch.setitem(objects, "spring", lambda *_, **__: mark.touch())
    return mark

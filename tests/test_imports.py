"""The layout's two rules: imports go down only, and Keras loads late."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# From the bottom up; a module may import what stands before its own layer, or in it where the
# layer is not one of programs.
LAYERS = [
    {"errors"},
    {"features", "idx", "history", "intervals", "model_checks", "workers"},
    {"dataset", "hyperparameters", "pages", "visualization"},
    {"on_device", "threads"},
    {
        "batches",
        "checkpoints",
        "evaluation",
        "leakage",
        "model_files",
        "shapes",
        "studies",
        "subsets",
    },
    {"callbacks", "comparison", "effects", "layers", "memory", "short_epochs", "workload"},
    {"distributed"},
    {"model"},
    {"prompts", "runs", "cli", "tracking"},
    {"sources"},
    {"label_efficiency", "report", "session", "trials"},
    {"cluster"},
    {"autoencoder", "classification", "make_configs"},
    {"experiments"},
]
KERAS_MODULES = {
    "batches",
    "callbacks",
    "distributed",
    "layers",
    "memory",
    "model",
    "on_device",
    "short_epochs",
}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported_modules(path, top_level_only=False):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if top_level_only:
        # `if TYPE_CHECKING:` imports nothing when the program runs.
        nodes = [node for node in tree.body if not isinstance(node, ast.If)]
    else:
        nodes = ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def test_every_module_has_a_layer():
    """A new file needs a place in the picture."""
    assert {path.stem for path in ROOT.glob("*.py")} == set(LEVEL)


@pytest.mark.parametrize("name", sorted(LEVEL))
def test_imports_go_down(name):
    """Nothing imports what stands above it, and programs do not import each other."""
    for other in set(imported_modules(ROOT / f"{name}.py")) & set(LEVEL):
        assert LEVEL[other] < LEVEL[name], f"{name} imports {other}"


@pytest.mark.parametrize("name", sorted(set(LEVEL) - KERAS_MODULES))
def test_keras_loads_late(name):
    """Only the modules that train import Keras, or a module that does, at their top."""
    top = set(imported_modules(ROOT / f"{name}.py", top_level_only=True))
    assert not top & ({"keras", "tensorflow"} | KERAS_MODULES)


@pytest.mark.parametrize("name", ["keras", "tensorflow"])
def test_tensorflow_behind_two_modules(name):
    """`tf.` stays in the input pipeline and in what connects workers; the rest is Keras."""
    users = {path.stem for path in ROOT.glob("*.py") if name in set(imported_modules(path))}
    allowed = {
        "keras": {*KERAS_MODULES - {"batches"}, "model_files"},
        "tensorflow": {"batches", "distributed"},
    }
    # The programs name keras only for type checkers.
    users -= {"cli", "session", "autoencoder", "classification"}
    assert users == allowed[name]


@pytest.mark.parametrize(
    "program", ["autoencoder", "classification", "experiments", "make_configs"]
)
def test_help_answers_without_tensorflow(program):
    """--help is printed before the seconds that TensorFlow needs to load."""
    code = (
        f"import sys, {program}\n"
        "try:\n"
        f"    {program}.main(['--help'])\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        "heavy = {'tensorflow', 'keras', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout

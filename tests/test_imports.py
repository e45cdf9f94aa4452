"""The layout: a room imports only what stands before it, and heavy libraries load late."""

import ast
import re

import pytest
from conftest import ROOT, run_python

# The picture of docs/architecture.md, from the ground up. `training` and `figures` stand side by
# side: neither imports the other.
ROOMS = ["config", "data", "records", "foreign", "training"]
ROOMS += ["figures", "programs", "studies", "report"]
GROUND = {"errors", "files", "terminal", "prompts"}
SIDE_BY_SIDE = {"training", "figures"}
MODULES = sorted((ROOT / "cae").rglob("*.py"))
PROGRAMS = ["autoencoder", "classification", "predict", "experiments", "make_configs"]
# Library -> where it may be imported at the top of a module, and where inside functions as well.
HEAVY = {
    "keras": (["cae/training/"], ["cae/records/saved_models.py", "cae/foreign/"]),
    "tensorflow": (["cae/training/"], []),
    "matplotlib": (["cae/figures/"], []),
    "ray": (["cae/studies/parallel.py"], []),
    "optuna": (["cae/studies/parallel.py"], []),
}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def imports(path, *, at_top_only=False):
    """The modules that a file imports, by their full names; not those for type checkers alone."""

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports what it names by dots"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (at_top_only and isinstance(node, ast.FunctionDef)):
            for child in ast.iter_child_nodes(node):
                yield from visit(child)

    return set(visit(ast.parse(path.read_text(encoding="utf-8"))))


def room_of(module):
    """`cae.data.idx` -> `data`; `cae.files` -> None."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 and parts[1] in ROOMS else None


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_room_imports_only_what_stands_before_it(path):
    parts = path.relative_to(ROOT / "cae").parts
    room = parts[0] if len(parts) > 1 else None
    for module in imports(path):
        if not module.startswith("cae."):
            assert not (ROOT / f"{module.split('.')[0]}.py").exists(), f"{module} is a program"
            continue
        other = room_of(module)
        if other is None:
            assert module.split(".")[1] in GROUND
        else:
            assert room is not None, f"the ground imports {module}"
            assert ROOMS.index(other) <= ROOMS.index(room), f"{module} stands above"
            assert {room, other} != SIDE_BY_SIDE, f"{module} stands beside"


def test_no_circles():
    """Within a room, too, modules can be put in an order in which each imports earlier ones."""
    graph = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): imports(path) for path in MODULES
    }
    graph = {
        name: {
            other for other in graph if any(m == other or m.startswith(other + ".") for m in found)
        }
        - {name}
        for name, found in graph.items()
        if not name.endswith("__init__")
    }
    while free := {name for name, found in graph.items() if not found & graph.keys()}:
        for name in free:
            del graph[name]
    assert not graph


def test_architecture_shows_these_rooms():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert re.findall(r"^cae/(\w+)/ ", page, re.MULTILINE) == ROOMS
    assert {path.parent.name for path in (ROOT / "cae").glob("*/*.py")} == set(ROOMS)


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_libraries_load_in_one_place(library):
    at_top, inside = HEAVY[library]
    for path in [*MODULES, *ROOT.glob("*.py")]:
        name = name_of(path)
        if any(name.startswith(place) for place in at_top):
            continue
        found = imports(path, at_top_only=name.startswith(tuple(inside)))
        assert library not in {module.split(".")[0] for module in found}, name


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_loads_the_flags_alone(program):
    """Not what checks configurations, and nothing that computes, draws or prints tables."""
    code = (
        f"import sys, {program}\n"
        "try:\n"
        f"    {program}.main(['--help'])\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        "assert not {'numpy', 'pydantic', 'rich', 'psutil'} & set(sys.modules)\n"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


class TestSize:
    """Limits past which an idea is missing."""

    def test_files_at_the_top(self):
        assert len(list(ROOT.glob("*.py"))) <= 7

    def test_files_per_room(self):
        for room in ROOMS:
            files = [p for p in (ROOT / "cae" / room).glob("*.py") if p.name != "__init__.py"]
            assert len(files) <= 12, room

    @pytest.mark.parametrize("folder", ["cae", "benchmarks", "tests", "."])
    def test_lines(self, folder):
        pattern = "*.py" if folder == "." else "**/*.py"
        for path in sorted((ROOT / folder).glob(pattern)):
            text = path.read_text(encoding="utf-8")
            assert text.count("\n") <= 500, path
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef):
                    assert node.end_lineno - node.lineno < 60, (path, node.name)

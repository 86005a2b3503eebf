"""Imports inside the package only go down, and never in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "ktae"

# Bottom up. A module belongs to the longest name here that it begins with; one in a package may import its siblings.
LAYERS = (
    {"config", "extras", "markdown", "seeds", "states"},
    {"checks"},
    {"units", "contingency", "rollout"},
    {"scores"},
    {"kernels"},
    {"advantages"},
    {"chance"},
    {"explanation"},
    {"estimators", "grading", "files"},
    {"integrations", "pictures"},
    {"models"},
    {"chain", "data"},
    {"evaluation"},
    {"train"},
    {"bench", "report"},
    {"cli"},
    {"__main__"},
)
LAYER = {name: layer for layer, names in enumerate(LAYERS) for name in names}
MODULES = sorted(path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", ".") for path in SOURCE.rglob("*.py"))


def imports_of(module):
    """The package's modules that a module imports, anywhere in it, as dotted names below `ktae`."""
    path = SOURCE / (module.replace(".", "/") + ".py")
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    below = {name.removeprefix("ktae.") for name in found if name.startswith("ktae.")}
    return {name for name in below if name in MODULES and name != module}


def room_of(module):
    return module.partition(".")[0]


@pytest.mark.parametrize("module", [module for module in MODULES if module != "__init__"])
def test_imports_only_go_down(module):
    for imported in imports_of(module):
        if room_of(imported) != room_of(module):
            assert LAYER[room_of(imported)] < LAYER[room_of(module)], f"{module} imports {imported}"


def test_no_circles():
    TopologicalSorter({module: imports_of(module) for module in MODULES}).prepare()  # or else it names the circle


def test_no_layer_is_empty():
    assert {room_of(module) for module in MODULES} - {"__init__"} == set(LAYER)

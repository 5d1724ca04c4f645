"""The walls of the house: imports point down, and each tool is used in one room only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "calogen"

FLOORS = {
    "units": 1,
    "overrides": 1,
    "progress": 1,
    "provenance": 1,
    "transforms": 1,
    "gaussianize": 1,
    "networks": 1,
    "methods": 1,
    "detector": 2,
    "data": 3,
    "train": 4,
    "evaluate": 4,
    "geant4": 4,
    "systems": 5,
    "report": 5,
    "export": 6,
    "scale": 6,
    "bench": 6,
    "solver_study": 6,
    "codebook_study": 6,
    "scaling_study": 6,
    "cli": 7,
    "__main__": 8,
}

NEVER = {
    ("methods", "networks"),
    ("networks", "methods"),
    ("evaluate", "systems"),
    ("report", "systems"),
    ("geant4", "systems"),
}

PAPERS = {"omnijet", "calodream", "caloclouds", "calohadronic", "allshowers"}

ONE_ROOM = {"matplotlib": "report/", "plotly": "report/", "h5py": "data/formats/"}

BANNED = {"utils", "util", "misc", "common", "helpers", "base", "v2"}

FILES = sorted(SOURCE.rglob("*.py"))


def imported(file: Path) -> Iterator[str]:
    """Full names of the modules a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide where they point"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(name: str) -> str | None:
    """Room of a module of ours, None for the face of the package and for others' modules."""
    parts = name.split(".")
    return parts[1] if parts[0] == "calogen" and len(parts) > 1 and parts[1] in FLOORS else None


def own_room(file: Path) -> str:
    part = file.relative_to(SOURCE).parts[0]
    return part.removesuffix(".py")


def named(file: Path) -> str:
    return str(file.relative_to(SOURCE))


@pytest.mark.parametrize("file", FILES, ids=named)
def test_every_file_stands_on_a_floor(file: Path) -> None:
    assert file == SOURCE / "__init__.py" or own_room(file) in FLOORS


@pytest.mark.parametrize("file", [f for f in FILES if f != SOURCE / "__init__.py"], ids=named)
def test_imports_point_down(file: Path) -> None:
    here = own_room(file)
    for target in filter(None, map(room, imported(file))):
        if target != here:
            allowed = FLOORS[target] < FLOORS[here] or (FLOORS[target] == FLOORS[here] == 1)
            assert allowed, f"{named(file)} (floor {FLOORS[here]}) imports {target} (floor {FLOORS[target]})"
            assert (here, target) not in NEVER, f"{named(file)} must not know {target}"


@pytest.mark.parametrize("file", FILES, ids=named)
def test_one_paper_does_not_import_another(file: Path) -> None:
    if file.stem in PAPERS and own_room(file) == "systems":
        others = {f"calogen.systems.{paper}" for paper in PAPERS - {file.stem}}
        assert not others & set(imported(file))


@pytest.mark.parametrize("file", FILES, ids=named)
def test_tools_stay_in_their_room(file: Path) -> None:
    for name in imported(file):
        home = ONE_ROOM.get(name.split(".")[0])
        assert home is None or named(file).startswith(home), f"{named(file)} imports {name}; only {home} may"


@pytest.mark.parametrize("file", FILES, ids=named)
def test_names_say_what_is_inside(file: Path) -> None:
    assert not BANNED & {part.removesuffix(".py") for part in file.relative_to(SOURCE).parts}


@pytest.mark.parametrize("file", FILES, ids=named)
def test_first_line_says_what_a_file_is(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{named(file)} has no docstring"


@pytest.mark.parametrize("file", FILES, ids=named)
def test_nobody_enters_through_the_face(file: Path) -> None:
    assert own_room(file) == "cli" or "calogen" not in set(imported(file)), (
        f"{named(file)}: import from the room itself"
    )

"""What the README says is true: its Python runs, its commands exist, its files are there."""

import re
import shlex
from pathlib import Path

import pytest

import calogen
from calogen.cli.app import COMMANDS, build
from calogen.data.formats import FORMATS
from calogen.detector.catalog import CATALOG

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMAND_LINES = [line.strip() for line in README.splitlines() if re.match(r"    calogen \w", line)]


def test_five_lines_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = PYTHON
    assert len([line for line in source.splitlines() if line.strip()]) <= 5
    monkeypatch.chdir(tmp_path)
    exec(compile(source, "README.md", "exec"), {})
    assert len(calogen.read("photons.h5")) == 100


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_commands_are_understood(line: str) -> None:
    _, *tokens = shlex.split(line, comments=True)
    assert tokens[0] in COMMANDS
    build().parse_args(tokens, exit_on_error=False, print_error=False)


def test_all_formats_and_detectors_are_listed() -> None:
    for name in (*FORMATS, *CATALOG):
        assert f"`{name}`" in README


def test_files_it_points_to_exist() -> None:
    for path in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / path).is_file(), path
    for path in ("CITATION.cff", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "Makefile"):
        assert (ROOT / path).is_file()

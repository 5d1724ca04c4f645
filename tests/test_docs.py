"""What the pages in docs/ say is true: commands are understood, parts and files exist, the Python runs."""

import re
import shlex
from pathlib import Path

import pytest

from calogen import Incident, load, write
from calogen.cli.app import COMMANDS, build
from calogen.evaluate.points import PARTS

DOCS = Path(__file__).resolve().parents[1] / "docs"
JUDGE = (DOCS / "judge.md").read_text(encoding="utf-8")
COMMAND_LINES = [
    line.strip()
    for page in sorted(DOCS.glob("*.md"))
    for line in page.read_text(encoding="utf-8").splitlines()
    if re.match(r"    calogen \w", line)
]


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_commands_are_understood(line: str) -> None:
    _, *tokens = shlex.split(line, comments=True)
    assert tokens[0] in COMMANDS
    build().parse_args(tokens, exit_on_error=False, print_error=False)


def test_all_parts_of_the_judgement_are_described() -> None:
    for name in PARTS:
        assert f"`{name}`" in JUDGE


def test_options_that_are_described_exist() -> None:
    known = {name for argument in build()["evaluate"].assemble_argument_collection() for name in argument.names}
    assert set(re.findall(r"`(--[a-z]+)", JUDGE)) <= known


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", JUDGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    system = load("caloclouds3")
    incident = Incident.gun(120, energy=(2, 6), seed=1)
    for seed, name in enumerate(("a.h5", "geant4.h5")):
        write(name, system.sample(incident, seed=seed))
    exec(compile(source, "docs/judge.md", "exec"), {})
    assert "True" in capsys.readouterr().out

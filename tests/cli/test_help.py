"""Help that a physicist understands: every command has it, quantities carry units, and it comes at once."""

import subprocess
import sys

import pytest

from calogen.cli import main
from calogen.cli.app import COMMANDS

UNITS = {
    "simulate": ("GeV", "mm", "ns", "tesla", "degrees", "mm/MeV"),
    "sample": ("GeV", "degrees"),
    "train": ("minutes",),
    "calibrate": ("GeV", "mm"),
    "evaluate": ("GeV",),
    "solvers": ("GeV", "minutes"),
    "codebooks": ("GeV", "mm", "cells", "layers"),
    "scaling": ("GeV", "nats"),
    "reconstruct": (),
    "bench": ("GeV", "milliseconds"),
    "convert": ("GeV", "mm", "ns"),
    "convert-weights": (),
    "info": ("GeV", "mm", "ns", "degrees"),
    "show": ("GeV", "mm"),
    "presets": (),
    "demo": ("mm",),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_units(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"calogen {command}" in text
    for unit in UNITS[command]:
        assert unit in text


def test_root_help_describes_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for command in COMMANDS:
        described = [line for line in lines if line.strip("│ ").startswith(f"{command} ")]
        assert described
        assert len(described[0].split()) > 4


HEAVY = {"torch", "numpy", "h5py", "matplotlib", "geant4_pybind", "scipy"}


@pytest.mark.parametrize(
    ("pages", "absent"), [([[]], HEAVY | {"cyclopts", "rich"}), ([[c, "--help"] for c in COMMANDS], HEAVY)]
)
def test_help_loads_nothing_heavy(pages: list[list[str]], absent: set[str]) -> None:
    code = (
        f"import sys; from calogen.cli import main; codes = [main(page) for page in {pages}]; "
        f"print(any(codes), sorted({absent} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "False []"


def test_the_first_page_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from calogen import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(shell: str) -> None:
    from calogen.cli.app import build

    script = build().generate_completion(shell=shell)
    assert "simulate" in script
    assert "energy" in script

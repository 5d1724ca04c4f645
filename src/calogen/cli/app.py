"""The commands by name, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from calogen.cli.errors import EXIT_USER, exit_code, one_line, show_warning

if TYPE_CHECKING:
    from cyclopts import App


class Command(NamedTuple):
    """File and function of a command in this folder, and what the first page says of it."""

    place: str
    about: str


COMMANDS = {
    "simulate": Command("simulate:simulate", "make showers with Geant4"),
    "train": Command("train:train", "fit a system to showers"),
    "sample": Command("sample:sample", "draw showers from a trained system"),
    "reconstruct": Command("reconstruct:reconstruct", "take showers through a system's code and back"),
    "calibrate": Command("calibrate:calibrate", "fit the factors of a trained system again"),
    "evaluate": Command("evaluate:evaluate", "judge showers against Geant4, on one page"),
    "solvers": Command("solvers:solvers", "compare the solvers of a state's flows"),
    "codebooks": Command("codebooks:codebooks", "resolution of a tokenizer against its codes"),
    "scaling": Command("scaling:scaling", "fit how a generator's loss falls with its size and data"),
    "bench": Command("bench:bench", "measure time and memory per shower"),
    "convert": Command("files:convert", "turn one format of shower files into another"),
    "convert-weights": Command("weights:convert_weights", "turn the authors' published weights into ours"),
    "info": Command("files:info", "say what is in a file"),
    "show": Command("show:show", "browse the showers of a file in 3D"),
    "presets": Command("presets:presets", "list the systems and what they can be trained as"),
    "demo": Command("demo:demo", "sample and judge what is shipped, in two minutes"),
}
"""A command's file is imported when it is called: the parser and its kin take longer to load than to use."""

FLAGS = {
    "--help (-h)": "this page; calogen COMMAND --help says more",
    "--install-completion": "complete options in your shell (bash, zsh, fish)",
    "--version": "the version",
}

HELP = "Generative models of calorimeter showers: simulate, train, sample, judge."
UNITS = "Units everywhere: GeV, mm, ns; angles in degrees on the command line."


def _version() -> str:
    from calogen import __version__

    return __version__


def build() -> App:
    """The command line as an object."""
    from cyclopts import App

    app = App(name="calogen", help=HELP, help_format="plaintext", suppress_keyboard_interrupt=False, version=_version)
    for number, (name, command) in enumerate(COMMANDS.items()):
        app.command(f"calogen.cli.{command.place}", name=name, sort_key=number)
    app.register_install_completion_command(help=FLAGS["--install-completion"])
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 2 a mistake in the request, 1 a bug, 130 interrupted."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if tokens in ([], ["--help"], ["-h"]):
            print(first_page())
        elif tokens == ["--version"]:
            print(_version())
        else:
            return _run(tokens)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0
    except BaseException as error:
        return exit_code(error)
    return 0


def _let_threads_sleep() -> None:
    """Threads of PyTorch that wait shall sleep, not spin, unless the user says otherwise.

    Where another program has one of the cores, small pieces of work spend their time spinning for the thread that
    cannot run: `calogen demo --system allshowers` took 200 s instead of 37 s on two cores of which one was busy.
    Sleeping costs a fifth where both are free. Read when PyTorch is loaded, so it is set before.
    """
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _run(tokens: list[str]) -> int:
    from cyclopts import CycloptsError

    _let_threads_sleep()

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            build()(tokens, exit_on_error=False, print_error=False, result_action="return_none")
    except CycloptsError as error:
        command = f" {tokens[0]}" if tokens[0] in COMMANDS else ""
        print(f"calogen: error: {one_line(error)} (calogen{command} --help)", file=sys.stderr)
        return EXIT_USER
    return 0


def first_page() -> str:
    """The help of `calogen` alone, made without the parser."""
    width = max(map(len, [*COMMANDS, *FLAGS]))
    commands = [f"  {name:{width}}  {command.about}" for name, command in COMMANDS.items()]
    flags = [f"  {name:{width}}  {about}" for name, about in FLAGS.items()]
    return "\n".join(["Usage: calogen COMMAND", "", HELP, UNITS, "", "Commands:", *commands, "", "Options:", *flags])

"""The commands by name, and the one place where errors become exit codes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError

from calogen.cli.demo import demo
from calogen.cli.errors import EXIT_USER, exit_code, one_line, show_warning
from calogen.cli.evaluate import evaluate
from calogen.cli.files import convert, info, show
from calogen.cli.presets import presets
from calogen.cli.sample import sample
from calogen.cli.simulate import simulate
from calogen.cli.train import train
from calogen.cli.weights import convert_weights

COMMANDS: dict[str, Callable[..., None]] = {
    "simulate": simulate,
    "train": train,
    "sample": sample,
    "evaluate": evaluate,
    "convert": convert,
    "convert-weights": convert_weights,
    "info": info,
    "show": show,
    "presets": presets,
    "demo": demo,
}
"""None of their modules imports more than the standard library before its command is called."""

HELP = """Generative models of calorimeter showers: simulate, train, sample, judge.

Units everywhere: GeV, mm, ns; angles in degrees on the command line. 'calogen COMMAND --help' says more.
"""


def _version() -> str:
    from calogen import __version__

    return __version__


def build() -> App:
    """The command line as an object."""
    app = App(name="calogen", help=HELP, help_format="plaintext", suppress_keyboard_interrupt=False, version=_version)
    for number, (name, command) in enumerate(COMMANDS.items()):
        app.command(command, name=name, sort_key=number)
    app.register_install_completion_command(help="Install completion for your shell (bash, zsh, fish).")
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 2 a mistake in the request, 1 a bug, 130 interrupted."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            build()(tokens, exit_on_error=False, print_error=False, result_action="return_none")
    except CycloptsError as error:
        print(f"calogen: error: {one_line(error)} (calogen{_command(tokens)} --help)", file=sys.stderr)
        return EXIT_USER
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0
    except BaseException as error:
        return exit_code(error)
    return 0


def _command(tokens: Sequence[str]) -> str:
    return f" {tokens[0]}" if tokens and tokens[0] in COMMANDS else ""

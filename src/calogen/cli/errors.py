"""What a user sees when something is wrong: one line on stderr, an exit code, and no traceback unless asked for."""

from __future__ import annotations

import errno
import os
import sys

EXIT_USER = 2
EXIT_BUG = 1
EXIT_INTERRUPT = 130  # 128 + SIGINT, as shells say it
TRACEBACK_VARIABLE = "CALOGEN_TRACEBACK"

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

USER_ERRORS = (ValueError, OSError, EOFError)


def exit_code(error: BaseException) -> int:
    """Say `error` on stderr, in one line, and give the code to leave with."""
    if os.environ.get(TRACEBACK_VARIABLE):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        print("calogen: interrupted", file=sys.stderr)
        return EXIT_INTERRUPT
    if isinstance(error, BrokenPipeError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the reader is gone; nothing may flush to it at exit
        return EXIT_BUG
    if isinstance(error, USER_ERRORS) or _is_ours(error):
        print(f"calogen: error: {one_line(error)}", file=sys.stderr)
        return EXIT_USER
    print(
        f"calogen: unexpected {type(error).__name__}: {one_line(error)} "
        f"(a bug; {TRACEBACK_VARIABLE}=1 shows where, please report it)",
        file=sys.stderr,
    )
    return EXIT_BUG


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Warnings as one line, without the place in the code (in the place of `warnings.showwarning`)."""
    print(f"calogen: warning: {' '.join(str(message).split())}", file=sys.stderr)


def one_line(error: BaseException) -> str:
    """The message of an error on one line; for errors of the operating system with the file it is about."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{os.fspath(error.filename)}: " if isinstance(error.filename, str | os.PathLike) else ""
        text = f"{where}{error.strerror}" + ("; free some space, or write elsewhere" if error.errno in NO_ROOM else "")
    else:
        text = str(error)
    return " ".join(text.split()) or type(error).__name__


def _is_ours(error: BaseException) -> bool:
    """Exceptions defined in calogen (no Geant4 data, a fit that diverged) carry a message for users."""
    return isinstance(error, Exception) and type(error).__module__.startswith("calogen.")

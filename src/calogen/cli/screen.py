"""What a command prints: progress bars, tables and plain lines, none of them when it is asked to be quiet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

Progress = Callable[[int, int], None]
"""Called with (done, all)."""


@contextmanager
def progress(label: str, *, quiet: bool) -> Iterator[Progress]:
    """A progress bar of showers on stderr from the first report on, so that a refused request shows none."""
    from calogen.progress import progress_bar

    with ExitStack() as stack:
        advance: Callable[[int], None] | None = None
        before = 0

        def report(done: int, total: int) -> None:
            nonlocal advance, before
            if advance is None:
                advance = stack.enter_context(progress_bar(label, total, "showers", shown=not quiet))
            advance(done - before)
            before = done

        yield report


def say(text: str, *, quiet: bool = False) -> None:
    """One plain line on stdout."""
    if not quiet:
        print(text)


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: bool = False, quiet: bool = False
) -> None:
    """A table on stdout; first column to the left, the others to the right (numbers) unless `left`."""
    if quiet:
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(
        title_justify="left", show_header=any(columns), box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0)
    )
    for i, name in enumerate(columns):
        drawn.add_column(name, justify="right" if i and not left else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(escape, row))
    console = Console()
    console.print(escape(title), style="bold")
    console.print(drawn)
    console.print()

"""A report's folder: made whole or not at all, and never in the place of anything else."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

PAGE = "index.html"
FILES = (PAGE, "scores.json", "scores.csv")
"""What a report's folder holds, and nothing else."""


def check_place(out: Path, overwrite: bool, files: Collection[str] = FILES) -> None:
    """Refuse a folder that is in the way; one that holds no others than `files` may be replaced.

    Raises:
        ValueError: its parent is missing, it is a file, it is not to be replaced, or it holds something else.
    """
    if not out.parent.is_dir():
        raise ValueError(
            f"the folder {out.parent} does not exist; make it first or choose another place for the report"
        )
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; name a folder for the report")
    held = {p.name for p in out.iterdir()}
    if held and not overwrite:
        raise ValueError(f"{out} exists; choose another folder or allow overwriting")
    if held - set(files):
        raise ValueError(f"{out} holds {sorted(held - set(files))[0]!r}, which is no part of a report; choose another")


def write_folder(out: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write `contents` (text or bytes by file name) beside `out` and put them in its place at once."""
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for name, content in contents.items():
            (partial / name).write_bytes(content.encode() if isinstance(content, str) else content)
        partial.chmod(0o755)
        _put_in_place(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial: Path, out: Path) -> None:
    if not out.exists():
        partial.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    try:
        out.rename(old / out.name)
        partial.rename(out)
    finally:
        shutil.rmtree(old, ignore_errors=True)

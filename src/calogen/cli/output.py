"""Outputs: refused before any work is done, and put in place only when they are whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from calogen.cli.errors import NO_ROOM


def require_free(path: Path, overwrite: bool) -> Path:
    """`path`, if a file may be written there.

    Raises:
        ValueError: it exists (without `overwrite`), is a directory, or its directory is missing or not writable.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a directory; give the name of a file")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists; choose another name, or --overwrite to replace it")
    folder = path.parent
    if not folder.is_dir():
        raise ValueError(f"cannot write {path}: the directory {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write {path}: no permission to write in {folder}; choose another directory")
    return path


def require_free_folder(path: Path, overwrite: bool) -> Path:
    """`path`, if a directory of results may be made there (an empty one counts as free)."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; give the name of a directory")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise ValueError(f"directory {path} is not empty; choose another name, or --overwrite to replace its files")
    folder = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not folder.is_dir():
        raise ValueError(f"cannot make directory {path}: {folder} is a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write in {path}: no permission to write in {folder}; choose another directory")
    return path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; it becomes `path` at the end, and is removed if anything goes wrong."""
    part = path.with_name(f".{path.stem}.part{os.getpid()}{path.suffix}")
    try:
        with blamed_on_output(path):
            yield part
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def blamed_on_output(path: Path) -> Iterator[None]:
    """A failure to write the hidden files beside `path`, which will become it, is a failure to write `path`."""
    try:
        yield
    except OSError as error:
        hidden = any(f".{stem}." in str(error.filename) for stem in (path.name, path.stem))
        if error.errno is None or not (hidden or (error.filename is None and error.errno in NO_ROOM)):
            raise
        raise OSError(error.errno, f"cannot be written: {os.strerror(error.errno)}", str(path)) from error

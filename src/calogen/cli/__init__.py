"""The command line: parse, call, print. Every command is a file here; nothing is computed in this folder."""

from calogen.cli.app import main

__all__ = ["main"]

"""The command line: `graphc COMMAND ...`, one file per command.

Owns what a person types and sees.  group.py is the entry and loads a command's file when it is named; output.py prints
tables and JSON; failure.py says how an error is told and with which exit code.  Commands ask the other rooms through
their public functions and hold no knowledge of their own.  Invariants: `graphc --help` imports neither NumPy nor any
compiler; what is printed where no terminal listens is plain, and the same for the same input; no traceback but of the
user's own code.
"""
from __future__ import annotations

from graphc.cli.group import main

__all__ = ["main"]

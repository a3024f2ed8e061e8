"""Options that several commands share, and the environment's settings under them.

Owns the reading of GRAPHC_* for commands.  Invariant: a bad value is a wrong command line, told by the variable's name.
"""
from __future__ import annotations

import click

from graphc import options
from graphc.options import Options


def environment() -> Options:
    """Return the options that the environment gives.  Raises UsageError naming the variable."""
    try:
        return options.from_environment()
    except ValueError as error:
        raise click.UsageError(str(error)) from None

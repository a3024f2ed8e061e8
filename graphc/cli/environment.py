"""The environment's settings, as commands read them."""
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

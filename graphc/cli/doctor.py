"""`graphc doctor`: what there is, what is wrong with it, and what to do."""
from __future__ import annotations

from dataclasses import asdict
from itertools import groupby

import click

from graphc.cli import failure, output
from graphc.inspection.doctor import examine


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor_command(ctx: click.Context, as_json: bool) -> None:
    """Check versions, processor, cache, threads, devices and extras, and compile and run a small program.

    Ends with one line per problem that says what to do.  Exits with 1 where graphc does not work as it is.

    \b
    Example:
      graphc doctor
    """
    facts = examine()
    problems = [f for f in facts if f.problem]
    if as_json:
        output.show_json({"facts": [asdict(f) for f in facts], "works": not any(f.broken for f in problems)})
    else:
        topics = groupby(facts, key=lambda f: f.topic)
        output.show(*(output.Table(topic, ("", ""), [(f.name, f.value) for f in found]) for topic, found in topics))
        click.echo()
        rows = [("broken" if f.broken else "advice", f"{f.problem}: {f.fix}") for f in problems]
        output.show(output.Table("problems", ("", ""), rows))
    if any(f.broken for f in problems):
        ctx.exit(failure.FAILED)

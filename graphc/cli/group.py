"""The entry: `graphc`, its commands by name, and what happens when one of them fails.

Owns the table of commands; each stands in a file of its own that is imported when the command is named.  Invariants: an
unknown name is answered with near ones; every failure ends with the exit codes of failure.py.
"""
from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

import graphc
from graphc.cli import failure


class Commands(click.Group):
    """A group whose commands are imported when they are named.

    table: name -> (module, what the command does, in a line).  The command is the module's object of the same name.
    """

    def __init__(self, *arguments: Any, table: Mapping[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        module = importlib.import_module(self.table[cmd_name][0])
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None,
                                                                            list[str]]:
        name = args[0]
        if name not in self.table and not name.startswith("-") and not ctx.resilient_parsing:
            self._unknown(ctx, name)
        return super().resolve_command(ctx, args)

    def _unknown(self, ctx: click.Context, name: str) -> NoReturn:
        near = importlib.import_module("difflib").get_close_matches(name, self.table, 1)
        meant = f"  Did you mean {near[0]!r}?" if near else f"  The commands are: {', '.join(self.table)}."
        ctx.fail(f"There is no command {name!r}.{meant}")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, told) for name, (_, told) in self.table.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(name, help=told) for name, (_, told) in self.table.items()
                 if name.startswith(incomplete)]
        return found or click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(failure.interrupted())
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            ctx.exit(failure.tell(error))


_COMMANDS = {
    "run": ("graphc.cli.run", "Run a script, or a saved program."),
    "compile": ("graphc.cli.compile", "Compile a model file to a program that runs without the compiler."),
    "inspect": ("graphc.cli.inspect", "Show a model's layers, checks, kernels and memory."),
    "dump": ("graphc.cli.dump", "Print or draw what the compiler made of a model, at any stage."),
    "cache": ("graphc.cli.cache", "List, explain or clear what was compiled."),
    "doctor": ("graphc.cli.doctor", "Check this machine and this installation."),
    "ops": ("graphc.cli.ops", "List the operations there are."),
}

_EPILOG = """\b
Examples:
  graphc run models/mlp.py --epochs 2
  graphc compile models/mlp.py -o mlp.gcx
  graphc inspect models/mlp.py
  graphc dump models/mlp.py --what numba

\b
Tab completion: put this line into ~/.bashrc (zsh: zsh_source and ~/.zshrc; fish: fish_source):
  eval "$(_GRAPHC_COMPLETE=bash_source graphc)"

Exit codes: 0 done, 1 failed, 2 wrong command line, 130 interrupted; `run FILE` passes on what the script exits with.
"""


@click.group(cls=Commands, table=_COMMANDS, epilog=_EPILOG,
             context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(graphc.__version__, message="graphc %(version)s")
def main() -> None:
    """Compile, run and look into TensorFlow-1-style graphs.

    `graphc COMMAND --help` shows a command's options and examples.
    """

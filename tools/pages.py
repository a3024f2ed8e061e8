"""Documentation pages whose console blocks are real: runs them, compares what they print, writes it down.

    python tools/pages.py docs/command-line.md           compare
    python tools/pages.py --write docs/command-line.md   run everything and write the output into the page

A page may hold files (a python block under a line `<!-- file: NAME -->`) and console blocks, in which lines that begin
with "$ " are commands and the lines after each are what it prints, errors included.  All of them run in order, in one
empty folder that is also the home folder, with `graphc` being the one of this tree and no GRAPHC_* variable.

Two outputs are equal by these rules: a time is any other time (12.3 ms); a size of a file or of the cache is any other
(the lines that begin with "written", "removed" or "kernel"); a date, and the digits of a key, are any others; spaces
between columns count as one; the home folder is "~"; a line "..." stands for any number of lines.  Of a block under
`<!-- machine -->` the first words of lines are compared, up to the line "problems": the rest is the machine's own.
"""
from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 120  # that a command may take

_FILE = re.compile(r"<!-- file: (\S+) -->\n+```\w*\n(.*?)```\n", re.DOTALL)
_CONSOLE = re.compile(r"(<!-- machine -->\n)?```console\n(.*?)```\n", re.DOTALL)
_RULES = (
    (re.compile(r"\b\d[\d,.]* (ms|s)\b"), "TIME"),
    (re.compile(r"^( *written .*?, |removed .*?, | *kernel  \w+ +|\d+ in all .*: )[\d.]+ (?:B|KiB|MiB)", re.MULTILINE),
     r"\1SIZE"),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d\b"), "DATE"),
    (re.compile(r"\b[0-9a-f]{12,64}\b"), "KEY"),
    (re.compile(r"(?<=\S) {2,}"), "  "),
)


@dataclass(frozen=True, slots=True)
class Run:
    """A command of a page, what the page says it prints, and what it printed.  machine: it tells of the machine."""

    command: str
    told: str
    printed: str
    machine: bool = False

    @property
    def agrees(self) -> bool:
        """Whether the two are equal by the rules."""
        if self.machine:
            return _first_words(self.told) == _first_words(self.printed)
        pattern = "".join(".*" if line == "...\n" else re.escape(line)
                          for line in normal(self.told).splitlines(keepends=True))
        return re.fullmatch(pattern, normal(self.printed), re.DOTALL) is not None


def normal(text: str) -> str:
    """Return `text` with everything that may differ replaced."""
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    return text


def _first_words(text: str) -> list[str]:
    return [line.split()[0] for line in text.partition("problems\n")[0].splitlines() if line.strip()]


def run_page(text: str) -> list[Run]:
    """Run the console blocks of a page in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder).resolve()
        for name, content in _FILE.findall(text):
            (home / name).write_text(content, encoding="utf-8")
        tools = home / ".tools"
        tools.mkdir()
        (tools / "graphc").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m graphc "$@"\n')
        (tools / "graphc").chmod(0o755)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GRAPHC_")}
        environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PYTHONPATH": str(ROOT),
                        "PATH": f"{tools}{os.pathsep}{environment['PATH']}", "PYTHONWARNINGS": "default"}
        return [Run(command, told, _printed(command, home, environment), machine)
                for command, told, machine in _commands(text)]


def _commands(text: str) -> Iterator[tuple[str, str, bool]]:
    for machine, block in _CONSOLE.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, told = part.partition("\n")
            yield command, told, bool(machine)


def _printed(command: str, home: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(["bash", "-c", command], cwd=home, env=environment, stdin=subprocess.DEVNULL, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS)
    return done.stdout.replace(str(home), "~")


def rewritten(text: str, runs: Sequence[Run]) -> str:
    """Return the page with what the commands printed; an output that agrees stays as it is."""
    results = iter(runs)

    def block(found: re.Match[str]) -> str:
        parts = []
        for _ in re.findall(r"^\$ ", found[2], flags=re.MULTILINE):
            run = next(results)
            parts.append(f"$ {run.command}\n{run.told if run.agrees else run.printed}")
        return f"{found[1] or ''}```console\n{''.join(parts)}```\n"

    return _CONSOLE.sub(block, text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write what the commands print into the page")
    parser.add_argument("pages", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    wrong = 0
    for page in options.pages:
        text = page.read_text(encoding="utf-8")
        runs = run_page(text)
        different = [run for run in runs if not run.agrees]
        if options.write:
            page.write_text(rewritten(text, runs), encoding="utf-8")
        for run in different:
            print(f"{page}: $ {run.command}\n{run.printed}")
        wrong += len(different)
        print(f"{page}: {len(runs)} commands, {len(different)} {'rewritten' if options.write else 'different'}")
    return 1 if wrong and not options.write else 0


if __name__ == "__main__":
    sys.exit(main())

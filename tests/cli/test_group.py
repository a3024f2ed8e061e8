"""The entry: help, unknown names, completion, what a start imports, closed pipes, Ctrl-C."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphc.cli.output import Table, plain
from tests.cli.conftest import Graphc

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("run", "compile", "inspect", "dump", "cache", "doctor", "ops")
GRAPHC = [sys.executable, "-m", "graphc"]


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_help_names_every_command(graphc: Graphc) -> None:
    text = graphc("--help").stdout
    assert [line.split()[0] for line in text.split("Commands:\n")[1].split("\n\n")[0].splitlines()] == list(COMMANDS)
    assert graphc("-h").stdout == text


@pytest.mark.parametrize("command", [(c,) for c in COMMANDS] + [("cache", c) for c in ("ls", "why", "clear")])
def test_every_command_has_help_with_an_example(graphc: Graphc, command: tuple[str, ...]) -> None:
    text = graphc(*command, "--help").stdout
    assert text.startswith(f"Usage: graphc {' '.join(command)} ")
    assert f"  graphc {' '.join(command)}" in text.split("Example", 1)[1]
    assert max(map(len, text.splitlines())) <= 120


def test_unknown_names(graphc: Graphc) -> None:
    for arguments, message in ((("comple",), "There is no command 'comple'.  Did you mean 'compile'?"),
                               (("zzz",), "The commands are: run, compile, inspect, "),
                               (("cache", "lss"), "'lss'"), (("--versoin",), "--version"),
                               (("compile", "x.py", "--fech", "a"), "--fe")):
        assert message in graphc(*arguments, code=2).stderr


def test_help_imports_neither_numpy_nor_a_compiler() -> None:
    heavy = ("numpy", "numba", "llvmlite", "networkx", "matplotlib", "rich", "safetensors")
    script = "import sys\nfrom graphc.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n" \
             f"print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_completion(graphc: Graphc) -> None:
    for words, wanted in (("graphc ", list(COMMANDS)), ("graphc co", ["compile"]), ("graphc ops Mat", ["MatMul"]),
                          ("graphc dump --what k", ["kernels"]), ("graphc cache c", ["clear"])):
        listed = words.split(" ")
        environment = {**os.environ, "_GRAPHC_COMPLETE": "bash_complete", "COMP_WORDS": words,
                       "COMP_CWORD": str(len(listed) - 1)}
        script = "from graphc.cli import main; main(prog_name='graphc')"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment,
                              check=False)
        found = [line.split(",")[1] for line in done.stdout.splitlines()]
        assert set(wanted) <= set(found) and all(f.startswith(listed[-1]) for f in found), (words, done.stderr)


@pytest.mark.parametrize("command", [("ops",), ("dump", "model.py", "--what", "asm"), ("inspect", "model.py")])
def test_a_closed_pipe_is_no_error(model: Path, command: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*GRAPHC, *command], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.stderr == "" and done.returncode == 1


def test_ctrl_c(folder: Path) -> None:
    (folder / "slow.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    for command in ("compile", "inspect", "run"):
        done = subprocess.run([*GRAPHC, command, "slow.py"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (130, "interrupted\n"), command


def test_what_is_printed_away_from_a_terminal_is_plain(graphc: Graphc, model: Path) -> None:
    for arguments in (("ops",), ("doctor",), ("inspect", model), ("compile", model)):
        text = graphc(*arguments).stdout
        assert "\x1b" not in text and not any(c in text for c in "─│━┃")


def test_tables() -> None:
    table = Table("title", ("name", ">size", ""), [("a", "1", "x"), ("long", "1,000", "")])
    assert plain(table) == "title\n  name   size\n  a         1  x\n  long  1,000\n"
    assert plain(Table("", ("a",), [], "nothing here")) == "  nothing here\n"
    assert plain(Table("", ("", ""), [("a", "b")])) == "  a  b\n"


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_gets_a_drawn_table(no_color: bool) -> None:
    pty = pytest.importorskip("pty")
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"} | ({"NO_COLOR": "1"} if no_color else {})
    process = subprocess.Popen([*GRAPHC, "ops", "--kind", "structured"], stdout=terminal, env=environment)
    os.close(terminal)
    text = b""
    while True:
        try:
            part = os.read(controller, 1 << 16)
        except OSError:  # the other end is closed
            break
        text += part
        if not part:
            break
    os.close(controller)
    assert process.wait(60) == 0
    assert b"Loop" in text and ("─".encode() in text) is not no_color and (b"\x1b" in text) is not no_color


def test_the_version(graphc: Graphc) -> None:
    (own,) = (f["value"] for f in json.loads(graphc("doctor", "--json").stdout)["facts"] if f["name"] == "graphc")
    assert graphc("--version").stdout == f"graphc {own}\n"

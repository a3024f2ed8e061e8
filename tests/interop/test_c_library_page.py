"""docs/c-library.md is true: its files and commands, in order, give what it shows."""
from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from graphc.cli import main
from graphc.runtime.link import can_link

PAGE = Path(__file__).parents[2] / "docs" / "c-library.md"
pytestmark = pytest.mark.skipif(not can_link(), reason="libraries are loaded on x86-64 Linux")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[tuple[str, str]]:
    """The commands of a console block and what each prints."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the model's file and the library."""
    (tmp_path / "classifier.py").write_text(blocks("python")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAPHC_CACHE_DIR", "")
    (command, shown), = commands(blocks("console")[0])
    assert command.startswith("graphc ") and not shown
    done = CliRunner().invoke(main, command.split()[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return tmp_path


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler here")
def test_the_c_program(folder: Path) -> None:
    (folder / "main.c").write_text(blocks("c")[0])
    for command, shown in commands(blocks("console")[1]):
        strict = "cc -Wall -Wextra -Werror -pedantic "
        done = subprocess.run(command.replace("cc ", strict, 1) if command.startswith("cc ") else command, shell=True,
                              cwd=folder, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, shown, "")


def test_the_python_program(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", blocks("python")[1]], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, blocks("text")[0], "")


def test_every_status_and_function_is_described(folder: Path) -> None:
    header = (folder / "libclassifier.h").read_text()
    page = PAGE.read_text()
    for status in re.findall(r"CLASSIFIER_(\w+) = \d", header):
        assert f"`NAME_{status}`" in page
    for function in re.findall(r"\bclassifier_(\w+)\(", header):
        assert f"`NAME_{re.sub('shape_of_.*', 'shape_of_OUTPUT', function)}(" in page

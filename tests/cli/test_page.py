"""docs/command-line.md tells the truth: its commands, run in order, print what it says."""
from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    """tools/pages.py"""
    spec = importlib.util.spec_from_file_location("pages", ROOT / "tools" / "pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pages"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page(pages: ModuleType) -> None:
    runs = pages.run_page((ROOT / "docs" / "command-line.md").read_text())
    assert len(runs) > 30
    wrong = [f"$ {run.command}\n{run.printed}" for run in runs if not run.agrees]
    assert not wrong, "python tools/pages.py --write docs/command-line.md\n" + "\n".join(wrong)


@pytest.mark.parametrize(("told", "printed", "agrees"), [
    ("a 1.5 ms\n", "a 22.0 ms\n", True), ("a 1.5 ms\n", "b 22.0 ms\n", False), ("3 kernels\n", "4 kernels\n", False),
    ("  written  m.gcx, 4.0 KiB\n", "  written       m.gcx, 5.5 MiB\n", True),
    ("arena 4.0 KiB\n", "arena 5.0 KiB\n", False),
    ("first\n...\nlast\n", "first\n1\n2\nlast\n", True), ("first\n...\nlast\n", "first\n1\n2\n", False),
    ("used 2026-01-02 03:04\n", "used 2027-11-12 13:14\n", True), ("key 0123456789ab\n", "key ba9876543210\n", True),
    ("", "Error\n", False)])
def test_the_rules(pages: ModuleType, told: str, printed: str, agrees: bool) -> None:
    assert pages.Run("x", told, printed).agrees is agrees


def test_a_page_is_rewritten_where_it_is_wrong(pages: ModuleType) -> None:
    page = "<!-- file: a.txt -->\n```text\nhello\n```\n\n```console\n$ cat a.txt\nwrong\n$ echo 1\n1\n```\n"
    runs = pages.run_page(page)
    assert [run.agrees for run in runs] == [False, True]
    assert pages.rewritten(page, runs) == page.replace("wrong", "hello")

"""`graphc cache`: what is in it, what an entry is, and that it is gone after clear."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Graphc


def test_ls_why_and_clear(graphc: Graphc, model: Path, folder: Path) -> None:
    assert graphc("cache", "ls").stdout == f"  {folder / 'cache'} is empty\n"
    assert json.loads(graphc("cache", "ls", "--json").stdout) == {"folder": str(folder / "cache"), "entries": []}
    graphc("compile", model)
    entries = json.loads(graphc("cache", "ls", "--json").stdout)["entries"]
    kernels = [e for e in entries if e["kind"] == "kernel"]
    assert [e["note"] for e in json.loads(graphc("cache", "ls", "--kind", "kernel", "--json").stdout)["entries"]] == [
        e["note"] for e in kernels]
    assert {"kernel": "contract_mat_mul_add"} in [e["note"] for e in kernels]
    text = graphc("cache", "ls", "--kind", "kernel").stdout
    assert "contract_mat_mul_add_tanh" in text and f"{len(kernels)} in all (kernel {len(kernels)}): " in text
    one = kernels[0]
    told = graphc("cache", "why", one["key"][:20]).stdout
    assert one["key"] in told and "the kernel's text, backend, target, versions, graphc's sources" in told
    assert json.loads(graphc("cache", "why", one["key"], "--json").stdout)["bytes"] == one["bytes"]
    assert f"{len(entries)} entries begin with ''" in graphc("cache", "why", "", code=1).stderr
    assert "no entry's key begins with 'xyz'" in graphc("cache", "why", "xyz", code=1).stderr
    assert graphc("cache", "clear").stdout.startswith(f"removed {len(entries)} files, ")
    assert json.loads(graphc("cache", "clear", "--json").stdout)["removed"] == 0
    assert "is empty" in graphc("cache", "ls").stdout


def test_every_kind_says_what_its_key_stands_for() -> None:
    from graphc.cli.cache import _DEPENDS
    from graphc.runtime.cache import KINDS

    assert set(_DEPENDS) == set(KINDS)


def test_no_folder(graphc: Graphc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", "")
    for command in (("ls",), ("why", "a"), ("clear",)):
        assert "the cache is in memory only" in graphc("cache", *command, code=1).stderr


def test_a_wrong_variable(graphc: Graphc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_THREADS", "many")
    assert "GRAPHC_THREADS='many' is not a value of threads" in graphc("cache", "ls", code=2).stderr

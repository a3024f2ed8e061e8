"""How errors are told: faults of graphc in full, others without its frames."""
from __future__ import annotations

from pathlib import Path

import pytest

from graphc.cli.failure import LONGEST, describe
from graphc.errors import PassError, ShapeError


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_a_users_error_is_its_message() -> None:
    assert describe(raised(ShapeError("two lines\n  at here"))) == "ShapeError: two lines\n  at here\n"


def test_a_short_fault_is_shown_whole() -> None:
    text = describe(raised(PassError("the pass x failed: y")))
    assert text.startswith("Traceback") and text.endswith("PassError: the pass x failed: y\n")


def test_a_long_fault_goes_to_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    error = raised(PassError("the pass x failed: y\n" + "IR\n" * LONGEST))
    first, told = describe(error).splitlines()
    assert first == "PassError: the pass x failed: y" and "is a fault of graphc" in told
    path = Path(told.rpartition(" ")[2])
    assert path.read_text().count("IR\n") == LONGEST and "Traceback" in path.read_text()
    path.unlink()
    monkeypatch.setenv("GRAPHC_FULL_TRACEBACK", "1")
    assert describe(error).count("IR\n") == LONGEST


def test_an_unforeseen_error_says_how_to_see_more() -> None:
    hint = "(frames inside graphc are hidden: GRAPHC_FULL_TRACEBACK=1 shows them)\n"
    assert describe(KeyError("a")) == f"KeyError: 'a'\n{hint}"
    assert describe(FileNotFoundError(2, "No such file", "x")) == "FileNotFoundError: [Errno 2] No such file: 'x'\n"
    assert describe(raised(KeyError("a"))).startswith("Traceback")  # this file is no part of graphc

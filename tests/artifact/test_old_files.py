"""The promise to old files: one file of each version of the format is kept, and is read for ever.

saved-program-v1.gcx (programs.kept): out = relu(x w + b) * scale + y with w = arange(12) / 8 as (4, 3),
b = (0.5, -1, 2) in bfloat16 and scale = 2 unless it is given; count = how many calls there were.  Machine code for
x86-64-v2.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors

import graphc
from graphc import errors
from graphc.artifact.contents import header_json
from graphc.artifact.format import VERSION, read_file
from graphc.artifact.load import read_contents
from graphc.graph.graph import fresh_default_graph
from graphc.tensorfile import unpack_tensors

DATA = Path(__file__).resolve().parents[1] / "data"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "saved-programs.md"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))


def test_a_file_of_each_version_is_kept() -> None:
    assert [p.name for p in sorted(DATA.glob("*.gcx"))] == [f"saved-program-v{n}.gcx" for n in range(1, VERSION + 1)]


@pytest.mark.parametrize("trust", [True, False])
def test_version_1(trust: bool) -> None:
    program = graphc.load(DATA / "saved-program-v1.gcx", trust=trust)
    assert [str(p) for p in program.signature.inputs] == ["x: float32 (?, 4)", "y: float32 (?, 3)", "scale: float32 ()"]
    assert [str(p) for p in program.signature.outputs] == ["out: float32 (?, 3)", "count: int64 ()"]
    w, b = np.arange(12, dtype=np.float32).reshape(4, 3) / 8, np.array([0.5, -1, 2], np.float32)
    rng = np.random.default_rng()
    for call, (rows, others) in enumerate([(5, 5), (1, 1), (1, 3), (4, 1)], 1):
        x, y = rng.integers(-3, 3, (rows, 4)).astype(np.float32), rng.integers(-3, 3, (others, 3)).astype(np.float32)
        results = program(x=x, y=y)
        assert np.array_equal(results["out"], np.maximum(x @ w + b, 0) * 2 + y) and results["count"] == call
    assert np.array_equal(program(x=x, y=y, scale=-0.5)["out"], np.maximum(x @ w + b, 0) * -0.5 + y)
    assert program.variables["calls"] == 5 and np.array_equal(program.variables["b"], b)
    with pytest.raises(errors.InvalidArgumentError):
        program(x=np.zeros((2, 4)), y=np.zeros((3, 3)))


def test_the_weights_of_version_1_are_a_safetensors_file() -> None:
    section = bytes(read_file(DATA / "saved-program-v1.gcx").sections["weights"])
    assert {name: s.dtype.name for name, s in unpack_tensors(section).items()} == {
        "w": "float32", "b": "bfloat16", "calls": "int64"}
    header = json.loads(section[8:8 + int.from_bytes(section[:8], "little")])
    assert header["b"]["dtype"] == "BF16"
    assert len(safetensors.deserialize(section)) == 3


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = [b for b in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "save(" in b]
    monkeypatch.chdir(tmp_path)
    with fresh_default_graph():
        exec(compile(example, str(PAGE), "exec"), {})
    assert (tmp_path / "y.gcx").exists()


def test_the_page_describes_every_field_and_section() -> None:
    contents = read_contents(read_file(DATA / "saved-program-v1.gcx"))
    rows = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    told = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert header_json(contents.header).keys() <= told
    generic = {re.sub(r"/\d+", "/V", re.sub(r"/(main|once)", "/PART", re.sub("x86-64-v2", "PROCESSOR", name)))
               for name in contents.sections}
    assert generic <= told and {"ir/V", "plan/V/PART/PROCESSOR"} <= generic

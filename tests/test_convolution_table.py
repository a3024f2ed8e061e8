"""The table of convolutions (tools/convolutions.py): what it measures is what it says, and it runs without PyTorch.

Times are not looked at.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from itertools import product
from math import prod
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "convolutions.py"


def load_tool() -> ModuleType:
    """Return the tool as a module; tools are no package."""
    spec = importlib.util.spec_from_file_location("convolutions", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["convolutions"] = module
    spec.loader.exec_module(module)
    return module


tool = load_tool()
Layer, LAYERS, PASSES, machine = tool.Layer, tool.LAYERS, tool.PASSES, tool.machine
SMALL = (
    Layer("plain", 2, 7, 3, 5, 3, 1, 1),
    Layer("strided", 3, 9, 4, 2, 3, 2, 1),
    Layer("sparse", 1, 8, 2, 3, 1, 2),
    Layer("grouped", 1, 5, 6, 4, 3, 1, 1, 2),
    Layer("transposed", 2, 3, 4, 5, 4, 2, 1, transposed=True),
)


def test_the_layers_are_many_and_different() -> None:
    assert len(LAYERS) >= 40 and len({layer.name for layer in LAYERS}) == len(LAYERS)
    assert {1, 3, 32, 129} <= {layer.batch for layer in LAYERS}
    assert {13, 27, 55} <= {layer.size for layer in LAYERS}
    assert any(layer.groups > 1 for layer in LAYERS) and any(layer.transposed for layer in LAYERS)


@pytest.mark.parametrize("layer", SMALL, ids=lambda layer: layer.network)
def test_passes_are_of_one_layer(layer: Layer) -> None:
    """The layer is linear in x and in w, so <y, dy> = <x, dx> = <w, dw>."""
    arrays = layer.arrays()
    results = {}
    for which in PASSES:
        (run, result), _ = tool.graphc(layer, which, arrays, 1)
        run()
        results[which] = result()
    assert results["forward"].shape == layer.y_shape
    against = {"forward": "dy", "input": "x", "filter": "w"}
    inner = [np.vdot(results[which].astype(np.float64), arrays[against[which]]) for which in PASSES]
    assert inner == pytest.approx([inner[0]] * 3, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("layer", SMALL, ids=lambda layer: layer.network)
def test_operations_and_bytes_are_counted(layer: Layer) -> None:
    """By going through every tap of every place along one axis, the other being the same."""
    large, small = sorted((layer.size, layer.result), reverse=True)
    read = [at for start, tap in product(range(small), range(layer.taps))
            if 0 <= (at := start * layer.stride - layer.pad + tap) < large]
    assert layer.flops == 2 * len(read) ** 2 * layer.batch * layer.channels * layer.features / layer.groups
    images = [prod(layer.y_shape), prod(layer.x_shape)]
    weights = prod(layer.w_shape)
    writes_large = "forward" if layer.transposed else "input"
    assert layer.bytes(writes_large) == 4 * (sum(images) + weights)
    images[not layer.transposed] = images[not layer.transposed] // large**2 * len(set(read)) ** 2
    assert layer.bytes("filter") == 4 * (sum(images) + weights)


def test_winograd_multiplies_less() -> None:
    layer = Layer("tiles", 1, 8, 16, 32, 3, 1, 1)
    full = 2.0 * 8 * 8 * 9 * 16 * 32
    assert layer.winograd_flops("forward", 4) == full / 4 and layer.winograd_flops("input", 2) == full / 2.25


def test_a_wrong_element_is_seen_and_rounding_is_not() -> None:
    out = np.random.default_rng(5).standard_normal((3, 40, 40, 16), dtype=np.float32)
    assert tool.agree(tool.digest(out), tool.digest(out + np.float32(1e-6)))
    wrong = out.copy()
    wrong[1, 7, 3, 5] += 1
    assert not tool.agree(tool.digest(wrong), tool.digest(out))


def test_a_floor_takes_the_best_rate_from_half_the_size_on() -> None:
    found = {1 << 20: 90.0, 1 << 21: 70.0, 1 << 22: 80.0, 1 << 23: 50.0}
    assert [machine.bandwidth(found, n) for n in (1, 2 << 20, 3 << 20, 8 << 20, 1 << 40)] == [90, 90, 80, 80, 50]


def test_faults_void_a_row() -> None:
    row = tool.Row(0, "forward")
    row.records["graphc"].append({"ms": 1.0, "check": [1.0, 0.5, 1.0], "tile": 0})
    row.records["torch"].append({"ms_first": 3.0, "ms_last": 2.0, "check_first": [1.0, 0.5, 1.0],
                                 "check_last": [1.0, 0.5, 1.0]})
    assert row.ratio == 2.0 and row.theirs == (2.0, "last") and not row.fault
    row.records["torch"][0]["check_last"] = [1.0, 0.6, 1.0]
    assert row.ratio is None and "differ" in row.fault


def test_it_runs_alone() -> None:
    """One layer without PyTorch: every pass has a time, a rate and a floor."""
    command = [sys.executable, str(TOOL), "--only", "odd b1 27", "--rounds", "1", "--seconds", "0.01", "--threads", "1",
               "--python", "torch="]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "torch: not installed, left out" in done.stderr
    for which in PASSES:
        assert re.search(rf"odd b1 27x27x33 5x5 65 │ {which} +│ +│ +\d+\.\d+ │ +- │ +\d+\.\d+ │", done.stdout)
    assert "from the floor: median" in done.stdout

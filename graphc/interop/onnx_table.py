"""Which ops ONNX can say, and why it cannot say the others.

Owns the table of rows (joined from the tables by kind) and the reasons.  Invariant: every op of the registry has a row,
a reason, or a decomposition; no op has both a row and a reason.
"""
from __future__ import annotations

from collections.abc import Mapping

from graphc.interop import onnx_elementwise, onnx_movement, onnx_windows
from graphc.interop.onnx_builder import Row
from graphc.ops.base import Kind, Op, all_ops

ROWS: Mapping[str, Row] = {**onnx_elementwise.ROWS, **onnx_movement.ROWS, **onnx_windows.ROWS}
"""What each op is in ONNX."""

_RANDOM = "its random numbers follow a counter that the session keeps; ONNX's follow nothing that is told"
_GRADIENT = "it is part of a gradient; ONNX files are for inference"
_WRITES = "it writes a variable; ONNX files are for inference"
_COMPILER = "only the compiler makes it, after what is exported"
_HOST = "it calls Python"
_CHECK = "ONNX has no checks of values"
_GAMMA = "ONNX has no gamma function"
_POSITION = "ONNX counts positions in windows in another order"

REASONS: Mapping[str, str] = {
    # random numbers
    **dict.fromkeys(("RandomUniform", "RandomStandardNormal", "TruncatedNormal", "RandomUniformInt", "RandomShuffle",
                     "Multinomial", "PhiloxAdvance", "PhiloxUniform", "PhiloxNormal", "PhiloxInt",
                     "PhiloxTruncatedNormal", "PhiloxPermutation", "PhiloxCategorical"), _RANDOM),
    # gradients
    **dict.fromkeys(("Conv2DBackpropFilter", "Conv3DBackpropFilterV2", "DepthwiseConv2dNativeBackpropFilter",
                     "AvgPoolGrad", "AvgPool3DGrad", "MaxPoolGrad", "MaxPoolGradGrad", "MaxPool3DGrad",
                     "MaxPool3DGradGrad", "MaxPoolSpread", "MaxPoolPick", "PatchesGrad"), _GRADIENT),
    **dict.fromkeys(("MaxPoolPosition", "MaxPoolIndex", "MaxPoolWithArgmax"), _POSITION),
    # effects
    **dict.fromkeys(("Assign", "AssignAdd", "AssignSub", "ScatterUpdate", "ScatterAdd", "ScatterSub", "CountUpTo",
                     "CountBelow"), _WRITES),
    **dict.fromkeys(("Print", "PyFunc"), _HOST), "Assert": _CHECK, "CheckNumerics": _CHECK,
    # what exporting takes apart before it comes to ops
    **dict.fromkeys(("Placeholder", "VariableV2", "ReadVariable", "IsVariableInitialized", "NoOp"),
                    "it is an input, a variable or a target of the graph, not a computation"),
    "InvertPermutation": "an order of axes must be known when the model is exported",
    **dict.fromkeys(("WinogradFilter", "WinogradConvolution", "WinogradFilterGradient", "NeighbourSum",
                     "ResizeAxisShares", "Fusion"),
                    _COMPILER),
    "Loop": "loops are not exported", "Cond": "branches are not exported",
    # what ONNX lacks
    "Cumprod": "ONNX has no running product", "Bitcast": "ONNX does not reinterpret bits",
    **dict.fromkeys(("Lgamma", "Digamma", "Trigamma"), _GAMMA),
}
"""Why an op cannot be said in ONNX."""


def is_decomposed(op: Op) -> bool:
    """Whether an op is exported as the ops that it decomposes into."""
    return op.name not in ROWS and op.name not in REASONS and op.decompose is not None


def covered() -> dict[Kind, tuple[str, ...]]:
    """Return the names of the ops that are exported, by kind, in order of their names."""
    found: dict[Kind, list[str]] = {}
    for name, op in sorted(all_ops().items()):
        if name in ROWS or is_decomposed(op):
            found.setdefault(op.kind, []).append(name)
    return {kind: tuple(names) for kind, names in found.items()}

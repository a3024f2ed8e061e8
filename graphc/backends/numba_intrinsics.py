"""Intrinsics that Numba lacks, for its CPU and its CUDA target alike.

Owns the functions that build them.  Imports no Numba: who calls hands in the target's `intrinsic` decorator
and its `types`.  Invariant: an intrinsic keeps the width of its arguments and touches no Python object.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Decorator = Callable[..., Any]


def _call(builder: Any, name: str, result: Any, values: Sequence[Any]) -> Any:
    """Return the call of an LLVM intrinsic or an external function by its full name."""
    from llvmlite import ir as llvm

    function = builder.module.globals.get(name)
    if function is None:
        function = llvm.Function(builder.module, llvm.FunctionType(result, [v.type for v in values]), name)
    return builder.call(function, values)


def float_function(intrinsic: Decorator, single: str, double: str, arity: int) -> Any:
    """Return the external or LLVM function over floats with these names for float32 and float64."""
    def typed(context: Any, args: tuple[Any, ...]) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
            name = single if signature.return_type.bitwidth == 32 else double
            return _call(builder, name, values[0].type, values)
        return args[0](*args), generate

    by_arity: dict[int, Callable[..., Any]] = {
        1: lambda context, a: typed(context, (a,)), 2: lambda context, a, b: typed(context, (a, b)),
        3: lambda context, a, b, c: typed(context, (a, b, c))}
    return intrinsic(by_arity[arity])


def remainder(intrinsic: Decorator) -> Any:
    """Return the remainder of floats with the sign of the dividend (C's fmod)."""
    def typed(context: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
            return builder.frem(*values)
        return a(a, b), generate
    return intrinsic(typed)


def bitcast(intrinsic: Decorator, target: Any) -> Any:
    """Return the reinterpretation of a scalar of the same width as `target`."""
    def typed(context: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
            return builder.bitcast(values[0], context.get_value_type(target))
        return target(x), generate
    return intrinsic(typed)


def pointer(intrinsic: Decorator, types: Any, element: Any) -> Any:
    """Return the address `offset` bytes behind a void pointer, as a pointer to elements."""
    def typed(context: Any, base: Any, offset: Any) -> Any:
        pointer = types.CPointer(element)

        def generate(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
            moved = builder.gep(values[0], [context.cast(builder, values[1], signature.args[1], types.int64)])
            return builder.bitcast(moved, context.get_value_type(pointer))
        return pointer(base, offset), generate
    return intrinsic(typed)


def saturating(intrinsic: Decorator, target: Any) -> Any:
    """Return the conversion of a float to an integer that saturates and takes NaN to 0."""
    def typed(context: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
            kind = "si" if target.signed else "ui"
            name = f"llvm.fpto{kind}.sat.i{target.bitwidth}.f{signature.args[0].bitwidth}"
            return _call(builder, name, context.get_value_type(target), values)
        return target(x), generate
    return intrinsic(typed)

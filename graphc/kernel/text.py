"""The printed form of kernels, as sketched at the top of ir.py.

Owns the text of expressions, statements and kernels, used in dumps, errors and cache keys.
Invariant: deterministic and complete: equal kernels print equally, different ones differently (the
provenance of the kernel, which is no part of its identity, is not printed).  Literals of float32,
int64 and bool are bare; others carry their dtype (`3:i32`).  `{n0 + 1}` is one size expression.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator

from graphc.dtypes import DType
from graphc.kernel import walk
from graphc.kernel.ir import (
    Axis,
    Const,
    Contract,
    Expr,
    For,
    Guard,
    If,
    Kernel,
    Let,
    Load,
    Local,
    Prim,
    Random,
    Reduce,
    Scan,
    Scatter,
    SizeOf,
    Stmt,
    Store,
    Var,
    While,
)

SHORT_NAMES: dict[str, str] = {
    "bool": "bool", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64", "uint8": "u8", "uint16": "u16",
    "uint32": "u32", "uint64": "u64", "float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64",
}

# Infix primitives: symbol and binding strength, as in Python.  Comparisons do not chain.
_COMPARISON, _UNARY, _ATOM = 1, 8, 9
INFIX: dict[str, tuple[str, int]] = {
    "eq": ("==", 1), "ne": ("!=", 1), "lt": ("<", 1), "le": ("<=", 1), "or": ("|", 2), "xor": ("^", 3), "and": ("&", 4),
    "shl": ("<<", 5), "shr": (">>", 5), "add": ("+", 6), "sub": ("-", 6), "mul": ("*", 7), "div": ("/", 7),
    "floordiv": ("//", 7), "floormod": ("%", 7),
}
_PREFIX = {"neg": "-", "not": "~"}


def short(dtype: DType) -> str:
    """Return the short name of a dtype: f32, i64, bf16, bool."""
    return SHORT_NAMES[dtype.name]


def format_const(c: Const) -> str:
    """Return the literal `c` as it prints."""
    if c.dtype.is_bool:
        return "true" if c.value else "false"
    text = repr(float(c.value)) if c.dtype.is_floating else str(int(c.value))
    return text if c.dtype.name in ("float32", "int64") else f"{text}:{short(c.dtype)}"


def format_expr(root: Expr) -> str:
    """Return the text of an expression, with the fewest parentheses that keep its meaning."""
    done: dict[int, tuple[str, int]] = {}

    def at_least(e: Expr, strength: int) -> str:
        text, own = done[id(e)]
        return text if own >= strength else f"({text})"

    for expr in walk.postorder((root,)):
        done[id(expr)] = _format_node(expr, at_least)
    return done[id(root)][0]


def _format_node(expr: Expr, at_least: Callable[[Expr, int], str]) -> tuple[str, int]:
    def args(values: tuple[Expr, ...]) -> str:
        return ", ".join(at_least(v, 0) for v in values)

    match expr:
        case Const():
            text = format_const(expr)
            return text, _UNARY if text.startswith("-") else _ATOM
        case Axis(name) | Var(name=name):
            return name, _ATOM
        case SizeOf(size):
            return (str(size) if size.is_symbol else f"{{{size}}}"), _ATOM
        case Load(buffer=buffer, index=index, predicate=predicate, other=other):
            clause = "" if predicate is None else f"; {at_least(predicate, 0)}"
            clause += "" if other is None else f" else {at_least(other, 0)}"
            return f"{buffer}[{args(index)}{clause}]", _ATOM
        case Guard(value=value, ok=ok, fallback=fallback, site=site):
            return f"guard#{site}({args((value, ok, fallback))})", _ATOM
        case Random(counter_low=low, counter_high=high, key=key, lane=lane):
            return f"philox({args((low, high, key))})[{at_least(lane, 0)}]", _ATOM
        case Prim(op=op, args=(a, b)) if op in INFIX:
            sign, strength = INFIX[op]
            left = at_least(a, strength + (strength == _COMPARISON))
            return f"{left} {sign} {at_least(b, strength + 1)}", strength
        case Prim(op=op, args=(a,)) if op in _PREFIX and not isinstance(a, Const):
            return f"{_PREFIX[op]}{at_least(a, _UNARY)}", _UNARY
        case Prim(op="cast", args=values):
            return f"{short(expr.dtype)}({args(values)})", _ATOM
        case Prim(op="bitcast", args=values):
            return f"bits_{short(expr.dtype)}({args(values)})", _ATOM
        case Prim(op=op, args=values):
            return f"{op}({args(values)})", _ATOM


def _list(values: tuple[Expr, ...]) -> str:
    return ", ".join(map(format_expr, values))


def _ranges(pairs: tuple[tuple[str, Expr], ...]) -> str:
    return ", ".join(f"{axis} < {format_expr(extent)}" for axis, extent in pairs)


def _element(buffer: str, index: tuple[Expr, ...], predicate: Expr | None = None) -> str:
    return f"{buffer}[{_list(index)}{'' if predicate is None else '; ' + format_expr(predicate)}]"


def _lines(body: walk.Block, indent: str) -> Iterator[str]:
    deeper = indent + "  "
    for s in body:
        match s:
            case For(axis, extent, inner, parallel):
                yield f"{indent}for {axis} < {format_expr(extent)}{' parallel' if parallel else ''}"
                yield from _lines(inner, deeper)
            case Let(name, value):
                yield f"{indent}let {name} = {format_expr(value)}"
            case Store(buffer, index, value, predicate):
                yield f"{indent}{_element(buffer, index, predicate)} = {format_expr(value)}"
            case Reduce(names, combiners, axis, extent, inner, values):
                head = f"reduce {', '.join(names)} = {', '.join(combiners)} over {axis} < {format_expr(extent)}"
                if not inner:
                    yield f"{indent}{head}: {_list(values)}"
                else:
                    yield indent + head
                    yield from _lines(inner, deeper)
                    yield f"{deeper}yield {_list(values)}"
            case Scan(name, combiner, axis, extent, inner, value, then, reverse):
                yield f"{indent}scan {name} = {combiner} over {axis} < {format_expr(extent)}" + (
                    " reverse" if reverse else "")
                yield from _lines(inner, deeper)
                yield f"{deeper}yield {format_expr(value)}"
                yield from _lines(then, deeper)
            case Local(name, dtype, shape, scope):
                yield f"{indent}local {name}: {short(dtype)}[{', '.join(map(str, shape))}] {scope}"
            case If(condition, then, orelse):
                yield f"{indent}if {format_expr(condition)}"
                yield from _lines(then, deeper)
                if orelse:
                    yield f"{indent}else"
                    yield from _lines(orelse, deeper)
            case While(names, initial, condition, inner, after):
                yield f"{indent}while {format_expr(condition)} from {', '.join(names)} = {_list(initial)}"
                yield from _lines(inner, deeper)
                yield f"{deeper}yield {_list(after)}"
            case Scatter(buffer, index, value, mode):
                yield f"{indent}scatter {mode} {_element(buffer, index)} = {format_expr(value)}"
            case Contract(batch, m, n, k, a, b, acc, acc_dtype, inner):
                groups = "; ".join(map(_ranges, (batch, m, n, k)))
                yield f"{indent}contract {acc}: {short(acc_dtype)} over [{groups}]: " \
                      f"{format_expr(a)} @ {format_expr(b)}"
                yield from _lines(inner, deeper)


def format_body(body: walk.Block, indent: str = "  ") -> str:
    """Return the text of statements, one per line."""
    return "\n".join(_lines(body, indent))


def format_stmt(stmt: Stmt) -> str:
    """Return the first line of a statement, as errors quote it."""
    return next(_lines((stmt,), ""))


def format_kernel(kernel: Kernel) -> str:
    """Return the text of a kernel, ending in a newline."""
    params = ", ".join(f"{p.name}: {p.role} {short(p.dtype)}[{', '.join(map(str, p.shape))}]" for p in kernel.params)
    head = f"kernel {kernel.name}({params}) sizes({', '.join(kernel.sizes)})"
    if kernel.aliases:
        head += f" aliases({', '.join(f'{out} = {source}' for out, source in kernel.aliases)})"
    lines = [head]
    lines += [f"  site {i}: {s.kind} {s.message!r} at {s.op!r}" for i, s in enumerate(kernel.sites)]
    lines += _lines(kernel.body, "  ")
    return "\n".join(lines) + "\n"

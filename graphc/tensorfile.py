"""Arrays by name in the safetensors format: eight bytes of length, a JSON header, the arrays' bytes.

Owns reading and writing of the format (https://huggingface.co/docs/safetensors), bfloat16 included, which NumPy has no
type for.  Written here rather than through the package: that takes 20 ms to import, has no bfloat16 for NumPy, and a
reader of foreign files must check every length before it is used.  Knows dtypes alone.
Invariants: reading allocates no more than the bytes it is given; equal arrays give equal bytes.
"""
from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.errors import GraphcError

Array = np.ndarray[Any, Any]

_NAMES: Mapping[DType, str] = {
    dtypes.bool_: "BOOL", dtypes.int8: "I8", dtypes.int16: "I16", dtypes.int32: "I32", dtypes.int64: "I64",
    dtypes.uint8: "U8", dtypes.uint16: "U16", dtypes.uint32: "U32", dtypes.uint64: "U64", dtypes.float16: "F16",
    dtypes.bfloat16: "BF16", dtypes.float32: "F32", dtypes.float64: "F64"}
_DTYPES: Mapping[str, DType] = {name: dtype for dtype, name in _NAMES.items()}
_LENGTH = 8
_HEADER_LIMIT = 100 << 20  # bytes of a header, as the format's own reader has it
_DEPTH = 16
_RANK = 32
_METADATA = "__metadata__"
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)


class TensorFileError(GraphcError, ValueError):
    """Bytes are not arrays in the safetensors format; the message says where."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One array in its stored form (bfloat16 as uint16) and its dtype."""

    dtype: DType
    array: Array


def pack_tensors(tensors: Mapping[str, Stored], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return `tensors` in the safetensors format, those of wide elements first so that every array is aligned."""
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.size, name))
    header: dict[str, Any] = {} if metadata is None else {_METADATA: dict(sorted(metadata.items()))}
    blocks: list[bytes | memoryview] = []
    end = 0
    for name in order:
        stored = tensors[name]
        little = stored.dtype.storage.newbyteorder("<")
        array = np.ascontiguousarray(stored.array, little)
        blocks.append(array.reshape(-1).view(np.uint8).data)
        header[name] = {"dtype": _NAMES[stored.dtype], "shape": list(stored.array.shape),
                        "data_offsets": [end, end + len(blocks[-1])]}
        end += len(blocks[-1])
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH)
    return b"".join((len(text).to_bytes(_LENGTH, "little"), text, *blocks))


def unpack_tensors(data: bytes | memoryview) -> dict[str, Stored]:
    """Return the arrays of bytes in the safetensors format; they are read-only and lie in `data`.

    Raises TensorFileError for anything but arrays of known dtypes that fill the data from end to end.
    """
    if len(data) < _LENGTH:
        raise TensorFileError(f"{len(data)} bytes are no safetensors file")
    length = int.from_bytes(bytes(data[:_LENGTH]), "little")
    if length > min(_HEADER_LIMIT, len(data) - _LENGTH):
        raise TensorFileError(f"a header of {length} bytes does not fit into {len(data)} bytes")
    start = _LENGTH + length
    try:
        header = read_json(bytes(data[_LENGTH:start]))
    except ValueError as error:
        raise TensorFileError(f"the header cannot be read: {error}") from None
    if not isinstance(header, dict):
        raise TensorFileError("the header is not an object")
    header.pop(_METADATA, None)
    body = memoryview(data)[start:]
    found: dict[str, Stored] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        dtype, shape, begin, end = _entry(name, entry)
        if not 0 <= begin <= end <= len(body) or end - begin != math.prod(shape) * dtype.size:
            raise TensorFileError(f"{name!r}: the bytes {begin} to {end} are not those of {dtype.name} {shape}")
        spans.append((begin, end, name))
        array = np.frombuffer(body[begin:end], dtype.storage.newbyteorder("<")).reshape(shape)
        if dtype.is_bool and array.size and array.view(np.uint8).max() > 1:
            raise TensorFileError(f"{name!r}: bytes other than 0 and 1 in an array of bool")
        found[name] = Stored(dtype, array)
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            raise TensorFileError(f"{name!r}: its bytes begin at {begin}, those before end at {at}")
        at = end
    if at != len(body):
        raise TensorFileError(f"{len(body) - at} bytes belong to no array")
    return found


def _entry(name: str, entry: Any) -> tuple[DType, tuple[int, ...], int, int]:
    match entry:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [int(begin), int(end)], **rest} if not rest:
            if kind not in _DTYPES:
                raise TensorFileError(f"{name!r}: unknown dtype {kind!r}; known: {', '.join(_DTYPES)}")
            if len(shape) <= _RANK and all(type(n) is int and 0 <= n < 2**63 for n in (*shape, begin, end)):
                return _DTYPES[kind], tuple(shape), begin, end
    raise TensorFileError(f"{name!r}: its entry is not dtype, shape and data_offsets")


def read_json(text: bytes) -> Any:
    """Return JSON of integers, texts, bools, nulls, lists and objects, nested a few levels deep.

    Raises ValueError for everything else that Python's reader would take: NaN, floats, names that stand twice, deep
    nesting, and integers of more than 20 digits.
    """
    decoded = text.decode()
    depth = 0
    for token in _BRACKETS.finditer(decoded):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token.group(), 0)
        if depth > _DEPTH:
            raise ValueError(f"nested more than {_DEPTH} levels deep")
    return json.loads(decoded, parse_int=_integer, parse_float=_no_number, parse_constant=_no_number,
                      object_pairs_hook=_unique)


def _integer(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text[:40]} is not an integer")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name[:100]!r} stands twice")
        found[name] = value
    return found

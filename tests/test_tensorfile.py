"""The safetensors format: what we write the package reads, what it writes we read, and nothing else is taken."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc import dtypes
from graphc.tensorfile import Stored, TensorFileError, pack_tensors, read_json, unpack_tensors


def stored(dtype: dtypes.DType, shape: tuple[int, ...], rng: np.random.Generator) -> Stored:
    """An array of random bits, NaNs of every kind among them."""
    array = np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.size), dtype.storage).reshape(shape)
    return Stored(dtype, np.asarray(array.view(np.uint8) % 2 == 1) if dtype.is_bool else array)


def every(rng: np.random.Generator) -> dict[str, Stored]:
    shapes = ((), (3,), (0, 4), (2, 3, 5))
    return {f"{d.name}/{len(s)}/é": stored(d, s, rng) for d in dtypes.ALL for s in shapes}


def equal(a: Stored, b: Stored) -> bool:
    return a.dtype is b.dtype and a.array.shape == b.array.shape and a.array.tobytes() == b.array.tobytes()


def test_every_dtype_comes_back() -> None:
    tensors = every(np.random.default_rng())
    data = pack_tensors(tensors, {"made by": "test"})
    found = unpack_tensors(data)
    assert found.keys() == tensors.keys() and all(equal(found[k], tensors[k]) for k in tensors)
    assert pack_tensors(dict(reversed(tensors.items())), {"made by": "test"}) == data
    assert all(s.array.ctypes.data % s.dtype.size == 0 or not s.array.size for s in found.values())
    with pytest.raises(ValueError, match="read-only"):
        found["float32/1/é"].array[0] = 1


def test_the_package_reads_what_we_write_and_we_read_what_it_writes() -> None:
    tensors = {k: v for k, v in every(np.random.default_rng()).items() if v.dtype is not dtypes.bfloat16}
    theirs = safetensors.numpy.load(pack_tensors(tensors))
    assert theirs.keys() == tensors.keys()
    for name, s in tensors.items():
        assert theirs[name].dtype == s.array.dtype and theirs[name].tobytes() == s.array.tobytes()
    again = unpack_tensors(safetensors.numpy.save({k: v.array.copy() for k, v in tensors.items()}))
    assert all(equal(again[k], tensors[k]) for k in tensors)


def test_strided_and_big_endian_arrays_are_written_as_they_are_read() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    packed = pack_tensors({"t": Stored(dtypes.float32, array.T), "b": Stored(dtypes.float32, array.astype(">f4"))})
    assert np.array_equal(unpack_tensors(packed)["t"].array, array.T)
    assert np.array_equal(unpack_tensors(packed)["b"].array, array)


def file(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape,
            "data_offsets": list(offsets) if isinstance(offsets, tuple) else offsets, **more}


@pytest.mark.parametrize(("data", "message"), [
    (b"", "0 bytes are no safetensors file"),
    (b"\xff" * 8, "does not fit into 8 bytes"),
    ((2**40).to_bytes(8, "little") + b"{}", "does not fit"),
    (file([]), "not an object"),
    (file(b"{"), "cannot be read"),
    (file(b'{"a": 1, "a": 1}'), "'a' stands twice"),
    (file(b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}"), "nested"),
    (file({"a": 1}), "'a': its entry"),
    (file({"a": entry("F33")}, bytes(4)), "unknown dtype 'F33'"),
    (file({"a": entry(more=1)}, bytes(4)), "its entry"),
    (file({"a": entry(shape=(2,))}, bytes(4)), "not those of float32 (2,)"),
    (file({"a": entry(shape=(-1,))}, bytes(4)), "its entry"),
    (file({"a": entry(shape=(True,))}, bytes(4)), "its entry"),
    (file({"a": entry(shape=(2**62, 2**62), offsets=(0, 4))}, bytes(4)), "not those of"),
    (file({"a": entry(offsets=(0, 8), shape=(2,))}, bytes(4)), "not those of"),
    (file({"a": entry(offsets=(4, 0))}, bytes(4)), "not those of"),
    (file({"a": entry(), "b": entry()}, bytes(4)), "its bytes begin at 0, those before end at 4"),
    (file({"a": entry(offsets=(4, 8))}, bytes(8)), "its bytes begin at 4"),
    (file({"a": entry()}, bytes(5)), "1 bytes belong to no array"),
    (file({"a": entry("BOOL", offsets=(0, 1))}, b"\x02"), "bytes other than 0 and 1"),
    (file({"a": entry(shape=(1,) * 33)}, bytes(4)), "its entry"),
])
def test_what_is_wrong_is_told(data: bytes, message: str) -> None:
    with pytest.raises(TensorFileError, match=re.escape(message)):
        unpack_tensors(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(TensorFileError):
        unpack_tensors(data)


def test_no_arrays_are_a_file_too() -> None:
    assert unpack_tensors(pack_tensors({})) == {}


@pytest.mark.parametrize("text", ["1.0", "NaN", "-Infinity", "1e5", "9" * 21, '{"a":1,"a":1}', "[" * 17 + "]" * 17,
                                  '"\\x"'])
def test_json_of_a_few_kinds_alone(text: str) -> None:
    with pytest.raises(ValueError):
        read_json(text.encode())
    assert read_json(b'{"a": [-12, "b{[", null, true, {}]}') == {"a": [-12, "b{[", None, True, {}]}

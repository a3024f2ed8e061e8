"""Element types: what a tensor's elements are, in TensorFlow 1's names.

Owns the table of dtypes and their NumPy counterparts.  Knows nothing of tensors or graphs.
Invariant: a `DType` is a singleton; compare with `is` or `==` alike.

bfloat16 has no NumPy type.  Its elements are *stored* as uint16 (the upper half of a float32) and
*shown* in NumPy as float32 arrays whose values are bfloat16 numbers, which float32 holds exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False, slots=True)
class DType:
    """One element type.

    name: TensorFlow's name.  size: bytes of one stored element.  kind: one of "bool", "int", "uint",
    "float".  as_numpy_dtype: the NumPy scalar type that values take outside.  storage: the NumPy
    dtype of one stored element (differs for bfloat16 alone).
    """

    name: str
    size: int
    kind: str
    as_numpy_dtype: Any
    storage: np.dtype[Any]

    @property
    def is_floating(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def is_unsigned(self) -> bool:
        return self.kind == "uint"

    @property
    def is_bool(self) -> bool:
        return self.kind == "bool"

    @property
    def is_numpy_compatible(self) -> bool:
        return True

    @property
    def base_dtype(self) -> DType:
        return self

    @property
    def real_dtype(self) -> DType:
        return self

    @property
    def bits(self) -> int:
        return 8 * self.size

    @property
    def min(self) -> Any:
        """Smallest representable finite value, as a NumPy scalar."""
        if self.is_bool:
            return False
        if self is bfloat16:
            return -self.max
        return np.finfo(self.as_numpy_dtype).min if self.is_floating else np.iinfo(self.as_numpy_dtype).min

    @property
    def max(self) -> Any:
        """Largest representable finite value, as a NumPy scalar."""
        if self.is_bool:
            return True
        if self is bfloat16:
            return np.float32(3.3895313892515355e38)
        return np.finfo(self.as_numpy_dtype).max if self.is_floating else np.iinfo(self.as_numpy_dtype).max

    def is_compatible_with(self, other: Any) -> bool:
        return self is as_dtype(other)

    def __reduce__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"tf.{self.name}"

    def __str__(self) -> str:
        return f"<dtype: '{self.name}'>"


def _dtype(name: str, kind: str, shown: Any, stored: Any = None) -> DType:
    storage = np.dtype(stored or shown)
    return DType(name, storage.itemsize, kind, shown, storage)


bool_ = _dtype("bool", "bool", np.bool_)
int8 = _dtype("int8", "int", np.int8)
int16 = _dtype("int16", "int", np.int16)
int32 = _dtype("int32", "int", np.int32)
int64 = _dtype("int64", "int", np.int64)
uint8 = _dtype("uint8", "uint", np.uint8)
uint16 = _dtype("uint16", "uint", np.uint16)
uint32 = _dtype("uint32", "uint", np.uint32)
uint64 = _dtype("uint64", "uint", np.uint64)
float16 = _dtype("float16", "float", np.float16)
bfloat16 = _dtype("bfloat16", "float", np.float32, np.uint16)
float32 = _dtype("float32", "float", np.float32)
float64 = _dtype("float64", "float", np.float64)

ALL: tuple[DType, ...] = (
    bool_,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
    float16,
    bfloat16,
    float32,
    float64,
)
_BY_NAME: dict[str, DType] = {d.name: d for d in ALL} | {
    "half": float16,
    "float": float32,
    "double": float64,
}
_BY_NUMPY: dict[np.dtype[Any], DType] = {d.storage: d for d in ALL if d is not bfloat16}


def as_dtype(value: Any) -> DType:
    """Return the DType that `value` names: a DType, a name, a NumPy dtype or type, or a Python type.

    Raises TypeError for anything else.  Source: tf.as_dtype.
    """
    if isinstance(value, DType):
        return value
    if isinstance(value, str) and value in _BY_NAME:
        return _BY_NAME[value]
    if value is float:
        return float32
    if value is int:
        return int32
    if value is bool:
        return bool_
    try:
        return _BY_NUMPY[np.dtype(value).newbyteorder("=")]
    except (KeyError, TypeError):
        known = ", ".join(d.name for d in ALL)
        raise TypeError(f"{value!r} is not a dtype; known dtypes: {known}") from None


def round_to_bfloat16(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return float32 `values` rounded to the nearest bfloat16 (ties to even), still as float32."""
    return bfloat16_to_float32(float32_to_bfloat16(values))


def float32_to_bfloat16(values: Any) -> np.ndarray[Any, Any]:
    """Return the stored form (uint16) of `values`, rounding to nearest, ties to even; NaN stays NaN."""
    f = np.asarray(values, np.float32)
    bits = f.view(np.uint32) if f.ndim else np.asarray(f).reshape(1).view(np.uint32).reshape(())
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(f), np.uint32(0x7FC0), rounded).astype(np.uint16)


def bfloat16_to_float32(stored: Any) -> np.ndarray[Any, Any]:
    """Return the float32 values of `stored` bfloat16 elements (uint16)."""
    wide = np.asarray(stored, np.uint16).astype(np.uint32) << np.uint32(16)
    return np.asarray(wide).reshape(-1).view(np.float32).reshape(np.shape(stored))

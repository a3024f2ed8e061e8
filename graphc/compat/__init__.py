"""`tf.compat`: text conversions, and `v1`, which is graphc itself."""
from __future__ import annotations


def as_bytes(value: str | bytes, encoding: str = "utf-8") -> bytes:
    """Return text as bytes.  Source: tf.compat.as_bytes."""
    return value.encode(encoding) if isinstance(value, str) else bytes(value)


def as_text(value: str | bytes, encoding: str = "utf-8") -> str:
    """Return bytes as text.  Source: tf.compat.as_text."""
    return value.decode(encoding) if isinstance(value, bytes) else value


as_str = as_text

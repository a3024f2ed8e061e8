"""Convolutions in NumPy: what the ops mean, tap by tap.

Owns the references of the convolution and of its two gradients.  Knows the geometry; must not know lowering.
Invariant: arrays keep their dtype; a tap is one product of matrices per group.
"""
from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from graphc.ops.convolution_window import Geometry

Array = np.ndarray[Any, Any]


def forward(g: Geometry, x: Array, w: Array) -> Array:
    """Return the convolution of x with the filter w."""
    padded = _padded(g, x)
    total = np.zeros((_int(g.groups), _positions(g), _int(g.features)), np.result_type(x, w))
    for tap, window in _taps(g):
        total += _by_group(g, padded[window], _int(g.channels)) @ _matrices(g, w[tap])
    return _joined(g, total, tuple(_int(n.out) for n in g.windows))


def filter_gradient(g: Geometry, x: Array, dy: Array, shape: tuple[int, ...]) -> Array:
    """Return the gradient for a filter of `shape`, from that of the output."""
    padded = _padded(g, x)
    outer = _by_group(g, _last(g, dy), _int(g.features))
    dw = np.empty(shape, np.result_type(x, dy))
    for tap, window in _taps(g):
        product = _by_group(g, padded[window], _int(g.channels)).transpose(0, 2, 1) @ outer
        dw[tap] = product[:, 0] if g.is_depthwise else product.transpose(1, 0, 2).reshape(shape[-2:])
    return dw


def input_gradient(g: Geometry, w: Array, dy: Array) -> Array:
    """Return the gradient for the input, from that of the output."""
    outer = _by_group(g, _last(g, dy), _int(g.features))
    channels = _int(g.groups) * _int(g.channels)
    padded = np.zeros((_int(g.batch), *_padded_sizes(g), channels), np.result_type(w, dy))
    shape = (_int(g.batch), *(_int(n.out) for n in g.windows), channels)
    for tap, window in _taps(g):
        product = outer @ _matrices(g, w[tap]).transpose(0, 2, 1)
        padded[window] += product.transpose(1, 0, 2).reshape(shape)
    dx = np.zeros((_int(g.batch), *(_int(n.size) for n in g.windows), channels), padded.dtype)
    inner, outer_part = _overlap(g)
    dx[inner] = padded[outer_part]
    return np.moveaxis(dx, -1, g.channel_axis)


def _int(n: Any) -> int:
    return int(n)


def _positions(g: Geometry) -> int:
    total = _int(g.batch)
    for n in g.windows:
        total *= _int(n.out)
    return total


def _padded_sizes(g: Geometry) -> tuple[int, ...]:
    return tuple(max(0, (_int(n.out) - 1) * n.stride + _int(n.reach)) for n in g.windows)


def _overlap(g: Geometry) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where the input, and where the padded input, hold the same elements."""
    inner, outer = [slice(None)], [slice(None)]
    for n, room in zip(g.windows, _padded_sizes(g), strict=True):
        before = _int(n.before)
        length = max(0, min(_int(n.size), room - before))
        inner.append(slice(0, length))
        outer.append(slice(before, before + length))
    return tuple(inner), tuple(outer)


def _padded(g: Geometry, x: Array) -> Array:
    """x, channels last, with zeros around it, as far as windows reach."""
    x = _last(g, x)
    padded = np.zeros((x.shape[0], *_padded_sizes(g), x.shape[-1]), x.dtype)
    inner, outer = _overlap(g)
    padded[outer] = x[inner]
    return padded


def _last(g: Geometry, x: Array) -> Array:
    return np.moveaxis(x, g.channel_axis, -1)


def _taps(g: Geometry) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Each tap of the filter, and the elements of the padded input that it meets in all windows."""
    for tap in itertools.product(*(range(_int(n.taps)) for n in g.windows)):
        starts = [t * n.dilation for t, n in zip(tap, g.windows, strict=True)]
        yield tap, (slice(None), *(slice(s, s + (_int(n.out) - 1) * n.stride + 1 if n.out else s, n.stride)
                                   for s, n in zip(starts, g.windows, strict=True)))


def _by_group(g: Geometry, x: Array, width: int) -> Array:
    """(positions, channels) as (groups, positions, channels of a group)."""
    return x.reshape(_positions(g), _int(g.groups), width).transpose(1, 0, 2)


def _matrices(g: Geometry, w: Array) -> Array:
    """One tap of a filter as a matrix per group."""
    if g.is_depthwise:
        return w[:, None, :]
    return w.reshape(_int(g.channels), _int(g.groups), _int(g.features)).transpose(1, 0, 2)


def _joined(g: Geometry, total: Array, spatial: tuple[int, ...]) -> Array:
    flat = total.transpose(1, 0, 2).reshape(_int(g.batch), *spatial, _int(g.groups) * _int(g.features))
    return np.moveaxis(flat, -1, g.channel_axis)

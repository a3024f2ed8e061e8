"""Static shapes as the user sees them."""
from __future__ import annotations

import pytest

from graphc.errors import ShapeError
from graphc.graph.shape import Dimension, TensorShape, broadcast_static_shape


def test_what_is_known_prints_as_in_tensorflow() -> None:
    assert str(TensorShape([None, 3])) == "(?, 3)"
    assert repr(TensorShape([None, 3])) == "TensorShape([Dimension(None), Dimension(3)])"
    assert str(TensorShape([5])) == "(5,)"
    assert str(TensorShape(None)) == "<unknown>"
    assert str(TensorShape([])) == "()"


def test_parts() -> None:
    s = TensorShape([None, 3, 4])
    assert s.as_list() == [None, 3, 4]
    assert s.ndims == len(s) == 3
    assert s[1] == 3
    assert s[1].value == 3
    assert int(s[-1]) == 4
    assert s[1:] == TensorShape([3, 4])
    assert [d.value for d in s] == [None, 3, 4]
    assert s.num_elements() is None
    assert TensorShape([2, 3]).num_elements() == 6
    assert TensorShape([]).num_elements() == 1
    assert not s.is_fully_defined()
    assert s.concatenate([5]).as_list() == [None, 3, 4, 5]
    with pytest.raises(ValueError, match="unknown rank"):
        TensorShape(None).as_list()


def test_merging_and_compatibility() -> None:
    assert TensorShape([None, 3]).merge_with([2, None]) == TensorShape([2, 3])
    assert TensorShape(None).merge_with([2]) == TensorShape([2])
    assert TensorShape([None, 3]).is_compatible_with([7, 3])
    assert not TensorShape([None, 3]).is_compatible_with([7, 4])
    assert not TensorShape([3]).is_compatible_with([3, 1])
    with pytest.raises(ShapeError, match="not compatible"):
        TensorShape([2]).merge_with([3])
    assert TensorShape([2]).with_rank(1).as_list() == [2]
    with pytest.raises(ShapeError):
        TensorShape([2]).with_rank_at_least(2)


def test_unknown_sizes_are_never_equal() -> None:
    unknown = Dimension(None)
    assert (unknown == Dimension(None)) is None
    assert (unknown < 3) is None
    assert (Dimension(3) == 3) is True
    assert (Dimension(3) + 1).value == 4
    assert (unknown * 2).value is None
    assert (7 // Dimension(2)).value == 3
    assert [0] * Dimension(2) == [0, 0]
    with pytest.raises(TypeError):
        int(unknown)
    with pytest.raises(ShapeError):
        Dimension(-1)


def test_broadcasting() -> None:
    assert broadcast_static_shape([4, 1], [3]).as_list() == [4, 3]
    assert broadcast_static_shape([None, 1], [3]).as_list() == [None, 3]
    assert broadcast_static_shape([None], [3]).as_list() == [3]
    with pytest.raises(ShapeError):
        broadcast_static_shape([2], [3])

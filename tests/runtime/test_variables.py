"""The variables of a session: copies in and out, stable addresses, generations."""
from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from graphc import dtypes
from graphc.runtime.cache import Cache
from graphc.runtime.memory import address, aligned_copy, aligned_empty, view_at
from graphc.runtime.variables import Variables


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=lambda d: d.name)
@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (3, 5)])
def test_values_come_back_as_copies(dtype: dtypes.DType, shape: tuple[int, ...]) -> None:
    store = Variables()
    value = np.random.default_rng().integers(0, 2, shape).astype(dtype.as_numpy_dtype)
    store.set("v", value, dtype)
    got = store.get("v")
    assert got.dtype == dtype.as_numpy_dtype and got.shape == shape
    np.testing.assert_array_equal(got, value)
    got[...] = 9 if dtype is not dtypes.bool_ else True
    np.testing.assert_array_equal(store.get("v"), value)
    assert store.view("v").dtype == dtype.storage
    assert value.size == 0 or address(store.view("v")) % 64 == 0


def test_addresses_stay_and_generations_tell() -> None:
    store = Variables()
    where = store.declare("v", dtypes.float32, (4,))
    assert not store.is_initialised("v") and store.names() == () and store.describe("w") is None
    with pytest.raises(KeyError):
        store.get("v")
    start = store.generation
    store.set("v", [1, 2, 3, 4], dtypes.float32)
    store.set("v", np.zeros(4), dtypes.float32)
    assert store.declare("v", dtypes.float32, (4,)) == where and store.generation == start
    assert store.names() == ("v",) and store.describe("v") == (dtypes.float32, (4,))
    store.mark("v", False)
    assert store.generation == start + 1
    store.set("v", np.zeros(5), dtypes.float32)
    assert store.generation == start + 2
    store.declare("v", dtypes.int32, (5,))
    assert store.generation == start + 3 and not store.is_initialised("v")
    store.clear()
    assert store.generation == start + 4 and store.describe("v") is None


def test_memory_is_aligned_and_views_are_of_it() -> None:
    for nbytes in (0, 1, 63, 64, 1000):
        block = aligned_empty(nbytes)
        assert block.nbytes == nbytes and (nbytes == 0 or address(block) % 64 == 0)
    a = aligned_copy(np.arange(12, dtype=np.int16).reshape(3, 4).T)
    view_at(address(a), (12,), np.dtype(np.int16))[5] = -1
    assert a.ravel()[5] == -1
    with pytest.raises(MemoryError):
        aligned_empty(1 << 60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_lock_held_at_a_fork_does_not_stop_the_child() -> None:
    variables, store = Variables(), Cache(None)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with variables._lock, store._lock:
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = os.fork()
    if not child:
        variables.set("v", 1, dtypes.int32)
        store.put("kernel", "k", b"x")
        os._exit(0 if variables.get("v") == 1 and store.get("kernel", "k") == b"x" else 1)
    assert os.waitpid(child, 0)[1] == 0
    done.set()
    holder.join()

"""The thread pools of this process.

Owns which pools exist, how large they may be, and what becomes of them in a fork.  Knows the native
functions of pool.py; knows nothing of plans.  Invariant: a pool's address stays valid for ever.
"""
from __future__ import annotations

import os
from collections.abc import Callable

from graphc.runtime.forks import tell_of_forks

OVERSUBSCRIPTION_LIMIT = 8  # threads that may be asked for even where there are fewer CPUs (tests)

SPIN_NS = 30_000   # a worker spins this long for its next job, then yields, ...
YIELD_NS = 150_000  # ... and sleeps after this long
HOT_NS = 2_000     # estimated work from which sharing it with workers that spin pays


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pools:
    """The pools of this process, one per number of threads, started by the first step that needs them.

    The workers are never waited for at exit: they hold no lock and no Python object, and the memory
    they look at is never freed, so ending the process under them is safe.
    """

    def __init__(self, new: Callable[[int, int, int, int], int | None], forget: Callable[[int], None],
                 stop: Callable[[int], None]) -> None:
        self._new, self._forget, self._stop = new, forget, stop
        self._pools: dict[int, int] = {}
        tell_of_forks(self)

    def of(self, threads: int) -> tuple[int, int]:
        """Return (address of a pool, its number of threads): `threads`, bounded by the CPUs of this
        process or by OVERSUBSCRIPTION_LIMIT, whichever is more.  Raises MemoryError."""
        count = max(1, min(threads, max(usable_cpus(), OVERSUBSCRIPTION_LIMIT)))
        if count not in self._pools:
            pool = self._new(count, SPIN_NS, YIELD_NS, int(count <= usable_cpus()))
            if not pool:
                raise MemoryError("no memory for a thread pool")
            # setdefault: of two threads that come here at once, both use the pool of the first
            return self._pools.setdefault(count, pool), count
        return self._pools[count], count

    def stop(self) -> None:
        """End all workers; the next step that needs them starts new ones."""
        for pool in self._pools.values():
            self._stop(pool)

    def after_fork(self) -> None:
        """Forget all workers: in the child of a fork they do not exist."""
        for pool in self._pools.values():
            self._forget(pool)

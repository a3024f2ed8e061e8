"""Waiting: how native threads spin, yield, sleep and wake each other on this system.

Owns what differs between systems and processors, and the code (LLVM IR text) that hides it: sleeping on a
32-bit word while it holds a value (futex on Linux, a pthread condition elsewhere), the clock, and leaving
a CPU that another thread needs.  Knows nothing of jobs.
Invariant: a sleeper wakes when the word has changed before it slept, or when it is woken after that; it may
also wake for no reason, so callers look again.
"""
from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from string import Template

# Byte offsets in a pool (pool.py) of what waiting needs there, and their types.
CPU, SETTINGS, MUTEX = 472, 512, 576

@dataclass(frozen=True, slots=True)
class Platform:
    """What the native code must know of the system.

    futex: number of the futex system call, or None where waiting goes through pthread conditions.
    pause: the instruction that tells the core that it spins, as IR.  clock: CLOCK_MONOTONIC.
    """

    futex: int | None
    pause: str
    clock: int
    block_signals: int
    pause_declaration: str = ""

    @staticmethod
    def host() -> Platform:
        """Return the description of this machine.  Raises NotImplementedError where there are no pthreads."""
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
        return Platform.of(sys.platform, machine)

    @staticmethod
    def of(system: str, machine: str) -> Platform:
        """Return the description of a system ("linux", "darwin") on a processor ("x86_64", "aarch64", ...).

        Raises NotImplementedError where there are no pthreads.
        """
        pause, declaration = {
            "x86_64": ("call void @llvm.x86.sse2.pause()", "declare void @llvm.x86.sse2.pause()"),
            "aarch64": ("call void @llvm.aarch64.hint(i32 1)", "declare void @llvm.aarch64.hint(i32)"),
        }.get(machine, ("fence seq_cst", ""))
        if system == "linux":
            return Platform({"x86_64": 202, "aarch64": 98}.get(machine), pause, 1, 0, declaration)
        if system == "darwin":
            return Platform(None, pause, 6, 1, declaration)
        raise NotImplementedError(f"the native step driver needs pthreads; there are none on {system}")


_TYPES = """
%Settings = type { i32, i32, i64, i64, i32 }       ; threads wanted, workers running, ns to spin, ns to yield, spread
%Slot = type { ptr, i64, i64, i64 }                ; pool, worker's index, its pthread, when it last moved
"""

# ---------------------------------------------------------------------------------------------
# Sleeping on a word, waking sleepers, and where threads run.

_FUTEX = """
declare i64 @syscall(i64, ...)

define internal void @wait(ptr %pool, ptr %word, i32 %expected) {
  call i64 (i64, ...) @syscall(i64 $FUTEX, ptr %word, i64 128, i32 %expected, ptr null, ptr null, i64 0)
  ret void
}

define internal void @wake(ptr %pool, ptr %word, i32 %count) {
  call i64 (i64, ...) @syscall(i64 $FUTEX, ptr %word, i64 129, i32 %count, ptr null, ptr null, i64 0)
  ret void
}

define internal void @wait_init(ptr %pool) {
  ret void
}

declare i32 @sched_getcpu()
declare i32 @sched_getaffinity(i32, i64, ptr)
declare i32 @sched_setaffinity(i32, i64, ptr)

; The leader tells where it runs; a worker that finds itself on the same CPU moves away from it, at most
; every 10 ms.  Systems place who is woken where they slept last, and two threads that serve each other look
; busy in turn, so two that ever shared a CPU were measured to go on sharing it for seconds.
define internal void @tell_cpu(ptr %pool) {
  %cpu = call i32 @sched_getcpu()
  %where = getelementptr i8, ptr %pool, i64 $CPU
  store atomic i32 %cpu, ptr %where monotonic, align 4
  ret void
}

define internal void @leave_cpu(ptr %pool, ptr %slot) {
entry:
  %allowed = alloca [16 x i64]
  %others = alloca [16 x i64]
  %settings = getelementptr i8, ptr %pool, i64 $SETTINGS
  %spread.at = getelementptr %Settings, ptr %settings, i64 0, i32 4
  %spread = load i32, ptr %spread.at
  %wanted = icmp ne i32 %spread, 0
  br i1 %wanted, label %look, label %out
look:
  %where = getelementptr i8, ptr %pool, i64 $CPU
  %leader = load atomic i32, ptr %where monotonic, align 4
  %mine = call i32 @sched_getcpu()
  %same = icmp eq i32 %mine, %leader
  %known = icmp ult i32 %mine, 1024
  %move = and i1 %same, %known
  br i1 %move, label %when, label %out
when:
  %last.at = getelementptr %Slot, ptr %slot, i64 0, i32 3
  %last = load i64, ptr %last.at
  %now = call i64 @now()
  %passed = sub i64 %now, %last
  %again = icmp sgt i64 %passed, 10000000
  br i1 %again, label %ask, label %out
ask:
  store i64 %now, ptr %last.at
  call void @llvm.memset.p0.i64(ptr %allowed, i8 0, i64 128, i1 false)
  %got = call i32 @sched_getaffinity(i32 0, i64 128, ptr %allowed)
  %some = icmp sge i32 %got, 0
  br i1 %some, label %leave, label %out
leave:
  call void @llvm.memcpy.p0.p0.i64(ptr %others, ptr %allowed, i64 128, i1 false)
  %cpu = zext i32 %mine to i64
  %word = lshr i64 %cpu, 6
  %bit = and i64 %cpu, 63
  %word.at = getelementptr i64, ptr %others, i64 %word
  %old = load i64, ptr %word.at
  %one = shl i64 1, %bit
  %not = xor i64 %one, -1
  %new = and i64 %old, %not
  store i64 %new, ptr %word.at
  call i32 @sched_setaffinity(i32 0, i64 128, ptr %others)  ; moves at once; refused where no other is allowed
  call i32 @sched_setaffinity(i32 0, i64 128, ptr %allowed)
  br label %out
out:
  ret void
}
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
"""

_CONDITION = """
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)

define internal void @wait(ptr %pool, ptr %word, i32 %expected) {
  %mutex = getelementptr i8, ptr %pool, i64 $MUTEX
  %condition = getelementptr i8, ptr %mutex, i64 128
  call i32 @pthread_mutex_lock(ptr %mutex)
  br label %look
look:
  %now = load atomic i32, ptr %word seq_cst, align 4
  %same = icmp eq i32 %now, %expected
  br i1 %same, label %sleep, label %out
sleep:
  call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %look
out:
  call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}

define internal void @wake(ptr %pool, ptr %word, i32 %count) {
  %mutex = getelementptr i8, ptr %pool, i64 $MUTEX
  %condition = getelementptr i8, ptr %mutex, i64 128
  call i32 @pthread_mutex_lock(ptr %mutex)
  call i32 @pthread_cond_broadcast(ptr %condition)
  call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}

define internal void @wait_init(ptr %pool) {
  %mutex = getelementptr i8, ptr %pool, i64 $MUTEX
  %condition = getelementptr i8, ptr %mutex, i64 128
  call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  call i32 @pthread_cond_init(ptr %condition, ptr null)
  ret void
}

define internal void @tell_cpu(ptr %pool) {  ; not told by every system
  ret void
}

define internal void @leave_cpu(ptr %pool, ptr %slot) {
  ret void
}
"""

# ---------------------------------------------------------------------------------------------
# Clock and patience.

_CLOCK = """
declare i32 @clock_gettime(i32, ptr)
declare i32 @sched_yield()
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
$PAUSE_DECLARATION

define internal i64 @now() {
  %time = alloca { i64, i64 }
  call i32 @clock_gettime(i32 $CLOCK, ptr %time)
  %seconds = load i64, ptr %time
  %at = getelementptr { i64, i64 }, ptr %time, i64 0, i32 1
  %rest = load i64, ptr %at
  %whole = mul i64 %seconds, 1000000000
  %ns = add i64 %whole, %rest
  ret i64 %ns
}

; One turn of waiting, number %turn of a wait that began at *%since (set at the first look at the clock).
; Returns true when it is time to sleep.
define internal i1 @linger(ptr %settings, ptr %since, i64 %turn) {
entry:
  %low = and i64 %turn, 31
  %look = icmp eq i64 %low, 31
  br i1 %look, label %clock, label %spin
spin:
  $PAUSE
  ret i1 false
clock:
  %now = call i64 @now()
  %first = icmp eq i64 %turn, 31
  br i1 %first, label %begin, label %compare
begin:
  store i64 %now, ptr %since
  ret i1 false
compare:
  %start = load i64, ptr %since
  %passed = sub i64 %now, %start
  %spin.at = getelementptr %Settings, ptr %settings, i64 0, i32 2
  %spin.ns = load i64, ptr %spin.at
  %spinning = icmp slt i64 %passed, %spin.ns
  br i1 %spinning, label %spin, label %polite
polite:
  %yield.at = getelementptr %Settings, ptr %settings, i64 0, i32 3
  %yield.ns = load i64, ptr %yield.at
  %yielding = icmp slt i64 %passed, %yield.ns
  br i1 %yielding, label %yield, label %sleep
yield:
  call i32 @sched_yield()
  ret i1 false
sleep:
  ret i1 true
}
"""


def waiting_text(where: Platform) -> str:
    """Return wait, wake, wait_init, tell_cpu, leave_cpu, now and linger as LLVM IR."""
    text = _TYPES + (_CONDITION if where.futex is None else _FUTEX) + _CLOCK
    return Template(text).substitute(FUTEX=where.futex, PAUSE=where.pause, PAUSE_DECLARATION=where.pause_declaration,
                                     CLOCK=where.clock, CPU=CPU, SETTINGS=SETTINGS, MUTEX=MUTEX)

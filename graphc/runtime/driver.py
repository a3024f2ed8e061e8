"""The native step driver: one loop that runs a whole table of steps.

Owns the layout of the step table in memory and the loop over it (LLVM IR text).  Knows kernels by their
calling convention (backends/base.py); knows nothing of plans: frame.py writes the tables.

A table is flat: nested loops and branches are steps with jumps, and what a loop must remember lies in a
record beside the table.  So the driver keeps nothing on its stack, and can leave at any step and be
called again: it returns to Python for host steps, and every 50 ms so that Ctrl-C is heard.

    word      0          1         2         3         4       5       6       7
    CALL      function   buffers   sizes     extent    -       -       op      plan step
    FORK      function   buffers   sizes     extent    grain   work    op      plan step
    COPY      target     source    bytes     -         -       work    op      plan step
    LOOP      record     -         -         -         -       -       op      plan step
    NEXT      record     -         -         -         -       -       op      plan step
    BRANCH    predicate  else      -         -         -       -       op      plan step
    JUMP      step       -         -         -         -       -       op      plan step
    HOST      number     -         -         -         -       -       op      plan step
    LINK      patches    count     -         -         -       -       op      -
    SKIP, END                                                        op      -

Buffers of steps other than CALL are given as the address of their cell, the word that holds their
current address, since feeds, fetches and slices move.  A LOOP's record is

    i, count, limit, count cell, bytes of the count, condition cell, index cell, taken cell,
    first step of the body, first step after the loop, patches, number of patches

(cells are 0 where absent) and a patch is (where, cell, stride, reverse): *where = *cell + stride * row.
Invariant: a step is finished or not begun whenever the driver is not running.
"""
from __future__ import annotations

from string import Template

from graphc.runtime.pool import pool_text
from graphc.runtime.waiting import Platform

END, CALL, FORK, COPY, LOOP, NEXT, BRANCH, JUMP, HOST, LINK, SKIP = range(11)
STEP_WORDS = 8
LOOP_WORDS = 12
PATCH_WORDS = 4

# The frame's header, in words.
FRAME_AT, FRAME_FIRST, FRAME_POOL, FRAME_SCRATCH, FRAME_STRIDE, FRAME_QUANTUM, FRAME_INTERVAL, FRAME_STATUS = range(8)
HEADER_WORDS = 8

DONE, CALL_HOST, TICK, FAILED = range(4)  # what the driver returns

QUANTUM_NS = 500_000      # estimated work between two looks at the clock
INTERVAL_NS = 50_000_000  # time after which the driver returns to Python
STEP_NS = 32              # what a step costs at least, in these estimates

_DRIVER = """
%Step = type { ptr, ptr, ptr, i64, i64, i64, i64, i64 }
%Frame = type { ptr, ptr, ptr, ptr, i64, i64, i64, i64 }  ; at, first, pool, scratch, stride, quantum, interval, status
%Loop = type { i64, i64, i64, ptr, i64, ptr, ptr, ptr, ptr, ptr, ptr, i64 }
%Patch = type { ptr, ptr, i64, i64 }
$POOL
declare ptr @memcpy(ptr, ptr, i64)

; Point the places in %patches at row %i of %count.
define internal void @patch(ptr %patches, i64 %number, i64 %i, i64 %count) {
entry:
  %last = sub i64 %count, 1
  %backwards = sub i64 %last, %i
  br label %next
next:
  %k = phi i64 [ 0, %entry ], [ %k.next, %set ]
  %more = icmp slt i64 %k, %number
  br i1 %more, label %set, label %done
set:
  %patch = getelementptr %Patch, ptr %patches, i64 %k
  %where = load ptr, ptr %patch
  %cell.at = getelementptr %Patch, ptr %patch, i64 0, i32 1
  %cell = load ptr, ptr %cell.at
  %stride.at = getelementptr %Patch, ptr %patch, i64 0, i32 2
  %stride = load i64, ptr %stride.at
  %reverse.at = getelementptr %Patch, ptr %patch, i64 0, i32 3
  %reverse = load i64, ptr %reverse.at
  %base = load ptr, ptr %cell
  %is.reverse = icmp ne i64 %reverse, 0
  %row = select i1 %is.reverse, i64 %backwards, i64 %i
  %offset = mul i64 %row, %stride
  %address = getelementptr i8, ptr %base, i64 %offset
  store ptr %address, ptr %where
  %k.next = add i64 %k, 1
  br label %next
done:
  ret void
}

; The int32 or int64 in the buffer of %cell.
define internal i64 @integer(ptr %cell, i64 %bytes) {
  %buffer = load ptr, ptr %cell
  %narrow = icmp eq i64 %bytes, 4
  br i1 %narrow, label %four, label %eight
four:
  %small = load i32, ptr %buffer
  %wide = sext i32 %small to i64
  ret i64 %wide
eight:
  %value = load i64, ptr %buffer
  ret i64 %value
}

; Store %value in the int64 buffer of %cell, where there is one.
define internal void @tell(ptr %cell, i64 %value) {
  %absent = icmp eq ptr %cell, null
  br i1 %absent, label %out, label %store
store:
  %buffer = load ptr, ptr %cell
  store i64 %value, ptr %buffer
  br label %out
out:
  ret void
}

; Run the table of %frame, from its first step or, with %resume, from where it was left.
define i64 @graphc_run(ptr %frame, i64 %resume) {
entry:
  %first.at = getelementptr %Frame, ptr %frame, i64 0, i32 1
  %pool.at = getelementptr %Frame, ptr %frame, i64 0, i32 2
  %scratch.at = getelementptr %Frame, ptr %frame, i64 0, i32 3
  %stride.at = getelementptr %Frame, ptr %frame, i64 0, i32 4
  %quantum.at = getelementptr %Frame, ptr %frame, i64 0, i32 5
  %interval.at = getelementptr %Frame, ptr %frame, i64 0, i32 6
  %status.at = getelementptr %Frame, ptr %frame, i64 0, i32 7
  %first = load ptr, ptr %first.at
  %left = load ptr, ptr %frame
  %pool = load ptr, ptr %pool.at
  %scratch = load ptr, ptr %scratch.at
  %stride = load i64, ptr %stride.at
  %quantum = load i64, ptr %quantum.at
  %resuming = icmp ne i64 %resume, 0
  %start = select i1 %resuming, ptr %left, ptr %first
  br label %step

step:                                              ; fuel: estimated work left until a look at the clock
  %at = phi ptr [ %start, %entry ], [ %following, %advance ], [ %following, %later ]
  %fuel = phi i64 [ %quantum, %entry ], [ %fuel.now, %advance ], [ %quantum, %later ]
  %deadline = phi i64 [ 0, %entry ], [ %deadline, %advance ], [ %deadline.now, %later ]
  %op.at = getelementptr %Step, ptr %at, i64 0, i32 6
  %op = load i64, ptr %op.at
  %w0 = load ptr, ptr %at
  %w1.at = getelementptr %Step, ptr %at, i64 0, i32 1
  %w1 = load ptr, ptr %w1.at
  %w2.at = getelementptr %Step, ptr %at, i64 0, i32 2
  %w2 = load ptr, ptr %w2.at
  %w3.at = getelementptr %Step, ptr %at, i64 0, i32 3
  %w3 = load i64, ptr %w3.at
  %after = getelementptr %Step, ptr %at, i64 1
  switch i64 %op, label %skip [
    i64 $END, label %end
    i64 $CALL, label %call
    i64 $FORK, label %fork
    i64 $COPY, label %copy
    i64 $LOOP, label %loop
    i64 $NEXT, label %next
    i64 $BRANCH, label %branch
    i64 $JUMP, label %jump
    i64 $HOST, label %host
    i64 $LINK, label %link
  ]
skip:
  br label %advance
end:
  ret i64 $DONE

call:
  %status.call = call i32 %w0(i64 0, i64 %w3, ptr %w1, ptr %w2, i64 0, ptr %scratch)
  br label %called
fork:
  %status.fork = call i32 @fork_join(ptr %pool, ptr %at, ptr %scratch, i64 %stride)
  br label %called
called:
  %status = phi i32 [ %status.call, %call ], [ %status.fork, %fork ]
  %fine = icmp eq i32 %status, 0
  br i1 %fine, label %advance, label %failed
failed:
  %status.wide = sext i32 %status to i64
  store i64 %status.wide, ptr %status.at
  store ptr %at, ptr %frame
  ret i64 $FAILED

copy:
  %target = load ptr, ptr %w0
  %source = load ptr, ptr %w1
  %bytes = ptrtoint ptr %w2 to i64
  call ptr @memcpy(ptr %target, ptr %source, i64 %bytes)
  br label %advance

loop:
  %limit.at = getelementptr %Loop, ptr %w0, i64 0, i32 2
  %limit = load i64, ptr %limit.at
  %count.cell.at = getelementptr %Loop, ptr %w0, i64 0, i32 3
  %count.cell = load ptr, ptr %count.cell.at
  %is.fixed = icmp eq ptr %count.cell, null
  br i1 %is.fixed, label %begin, label %read
read:
  %width.at = getelementptr %Loop, ptr %w0, i64 0, i32 4
  %width = load i64, ptr %width.at
  %fed = call i64 @integer(ptr %count.cell, i64 %width)
  br label %begin
begin:
  %count.new = phi i64 [ %limit, %loop ], [ %fed, %read ]
  %count.at = getelementptr %Loop, ptr %w0, i64 0, i32 1
  store i64 %count.new, ptr %count.at
  br label %test
next:
  %i.old = load i64, ptr %w0
  %i.new = add i64 %i.old, 1
  br label %test
test:
  %i = phi i64 [ 0, %begin ], [ %i.new, %next ]
  store i64 %i, ptr %w0
  %total.at = getelementptr %Loop, ptr %w0, i64 0, i32 1
  %total = load i64, ptr %total.at
  %below = icmp slt i64 %i, %total
  br i1 %below, label %ask, label %leave
ask:
  %condition.at = getelementptr %Loop, ptr %w0, i64 0, i32 5
  %condition = load ptr, ptr %condition.at
  %no.condition = icmp eq ptr %condition, null
  br i1 %no.condition, label %iterate, label %check
check:
  %flag.at = load ptr, ptr %condition
  %flag = load i8, ptr %flag.at
  %goes.on = icmp ne i8 %flag, 0
  br i1 %goes.on, label %iterate, label %leave
iterate:
  %patches.at = getelementptr %Loop, ptr %w0, i64 0, i32 10
  %patches = load ptr, ptr %patches.at
  %number.at = getelementptr %Loop, ptr %w0, i64 0, i32 11
  %number = load i64, ptr %number.at
  call void @patch(ptr %patches, i64 %number, i64 %i, i64 %total)
  %index.at = getelementptr %Loop, ptr %w0, i64 0, i32 6
  %index = load ptr, ptr %index.at
  call void @tell(ptr %index, i64 %i)
  %body.at = getelementptr %Loop, ptr %w0, i64 0, i32 8
  %body = load ptr, ptr %body.at
  br label %advance
leave:
  %taken.at = getelementptr %Loop, ptr %w0, i64 0, i32 7
  %taken = load ptr, ptr %taken.at
  call void @tell(ptr %taken, i64 %i)
  %exit.at = getelementptr %Loop, ptr %w0, i64 0, i32 9
  %exit = load ptr, ptr %exit.at
  br label %advance

branch:
  %predicate.at = load ptr, ptr %w0
  %predicate = load i8, ptr %predicate.at
  %holds = icmp ne i8 %predicate, 0
  %chosen = select i1 %holds, ptr %after, ptr %w1
  br label %advance
jump:
  br label %advance
host:
  store ptr %at, ptr %frame
  ret i64 $CALL_HOST
link:
  %links = ptrtoint ptr %w1 to i64
  call void @patch(ptr %w0, i64 %links, i64 0, i64 0)
  br label %advance

advance:
  %following = phi ptr [ %after, %skip ], [ %after, %called ], [ %after, %copy ], [ %body, %iterate ],
                       [ %exit, %leave ], [ %chosen, %branch ], [ %w0, %jump ], [ %after, %link ]
  %work.at = getelementptr %Step, ptr %at, i64 0, i32 5
  %work = load i64, ptr %work.at
  %spent = add i64 %work, $STEP_NS
  %fuel.now = sub i64 %fuel, %spent
  %burning = icmp sgt i64 %fuel.now, 0
  br i1 %burning, label %step, label %clock
clock:
  %now = call i64 @now()
  %is.first = icmp eq i64 %deadline, 0
  %interval = load i64, ptr %interval.at
  %end.of.turn = add i64 %now, %interval
  %deadline.now = select i1 %is.first, i64 %end.of.turn, i64 %deadline
  %due = icmp sge i64 %now, %deadline.now
  br i1 %due, label %tick, label %later
later:
  br label %step
tick:
  store ptr %following, ptr %frame
  ret i64 $TICK
}
"""

_PYTHON = """
; The same as a function that Python calls without ctypes: METH_NOARGS, self is the frame's address as int.
; The interpreter's functions are given by address, so that this object needs no symbol of Python.
@python = internal global [4 x ptr] zeroinitializer

define void @graphc_python(ptr %as_pointer, ptr %save, ptr %restore, ptr %from_integer) {
  store ptr %as_pointer, ptr @python
  store ptr %save, ptr getelementptr ([4 x ptr], ptr @python, i64 0, i64 1)
  store ptr %restore, ptr getelementptr ([4 x ptr], ptr @python, i64 0, i64 2)
  store ptr %from_integer, ptr getelementptr ([4 x ptr], ptr @python, i64 0, i64 3)
  ret void
}

define ptr @graphc_enter(ptr %self, ptr %nothing) {
  %as_pointer = load ptr, ptr @python
  %save = load ptr, ptr getelementptr ([4 x ptr], ptr @python, i64 0, i64 1)
  %restore = load ptr, ptr getelementptr ([4 x ptr], ptr @python, i64 0, i64 2)
  %from_integer = load ptr, ptr getelementptr ([4 x ptr], ptr @python, i64 0, i64 3)
  %frame = call ptr %as_pointer(ptr %self)
  %thread = call ptr %save()
  %event = call i64 @graphc_run(ptr %frame, i64 0)
  call void %restore(ptr %thread)
  %result = call ptr %from_integer(i64 %event)
  ret ptr %result
}
"""

SYMBOLS = ("graphc_run", "graphc_enter", "graphc_python", "graphc_pool_new", "graphc_pool_forget", "graphc_pool_stop")
IMPORTS = ("memcpy", "memset", "syscall", "clock_gettime", "sched_yield", "sched_getcpu", "sched_getaffinity",
           "sched_setaffinity", "posix_memalign", "pthread_create",
           "pthread_join", "pthread_sigmask", "pthread_mutex_init", "pthread_mutex_lock", "pthread_mutex_unlock",
           "pthread_cond_init", "pthread_cond_wait", "pthread_cond_broadcast")


def driver_text(where: Platform, delay: str = "", python: bool = True) -> str:
    """Return the driver and the pool as one LLVM module.  `delay`: see pool.pool_text.  python: with the
    functions that enter from Python, and their table of the interpreter's functions."""
    return Template(_DRIVER + (_PYTHON if python else "")).substitute(
        POOL=pool_text(where, delay), END=END, CALL=CALL, FORK=FORK, COPY=COPY, LOOP=LOOP, NEXT=NEXT, BRANCH=BRANCH,
        JUMP=JUMP, HOST=HOST, LINK=LINK, DONE=DONE, CALL_HOST=CALL_HOST, TICK=TICK, FAILED=FAILED, STEP_NS=STEP_NS)

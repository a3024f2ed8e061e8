"""The thread pool: fork-join over the work items of one kernel, as native code.

Owns the pool's layout in memory and its code (LLVM IR text).  Knows kernels by their calling convention
and one FORK step of the driver's table; knows nothing of plans.

How a join can never wait for a worker that overslept: a job is served by whoever registers in time.
One 64-bit word holds everything that decides about it,

    epoch (32 bits) | flags: OPEN, WAITING, STOP | number of active workers (16 bits)

The leader writes the job, then publishes it by storing (epoch + 1, OPEN, 0 active).  A worker enters by
one compare-and-swap from a word that is OPEN and of an epoch it has not served to the same word with one
more active worker; only then does it read the job.  All claim chunks from a shared counter, large ones
first (guided self-scheduling, Polychronopoulos and Kuck 1987), so that claims are few and each thread walks
through memory that follows on.  When no chunk is left the leader clears OPEN, after which nobody can
enter, and waits until the workers that did enter have left.  A late worker finds OPEN gone and goes back to
sleep; a worker that was delayed between reading the word and the swap fails the swap, because the epoch is
part of it.

Waiting is spinning first, then yielding, then sleeping, both for workers (on the epoch half of the word)
and for the leader (on the other half).  Sleepers announce themselves before the system call compares the
word, and publishing is sequentially consistent with reading that number, so no wake-up is lost.

Invariants: chunks begin at multiples of the kernel's grain whatever the number of threads; the status is
the smallest failing one over all chunks; a pool serves one run at a time and a run that finds it taken
does the step alone.
"""
from __future__ import annotations

from string import Template

from graphc.runtime.waiting import CPU, SETTINGS, Platform, waiting_text

WAKE_NS = 50_000   # estimated work from which waking a sleeper pays
SHARES = 2         # a claim takes this fraction of an even share of what is left

OPEN, WAITING, STOP = 1 << 16, 1 << 17, 1 << 18
ACTIVE = OPEN - 1

# Byte offsets in a pool.  Words that different threads write lie on different cache lines.
STATE, NEXT, JOB, STATUS, SLEEPERS, LEASE, SLOTS = (64 * i for i in (0, 2, 4, 5, 6, 7, 13))
SLOT_BYTES = 32  # one per thread: pool, index, handle, time
assert LEASE + 24 == CPU and LEASE < SETTINGS < SLOTS

# `$DELAY` is empty, or in the stress tests a call that dawdles for a random time.
_POOL = """
; function, buffers, sizes, extent, grain, scratch, bytes of it, parts that what is left is cut into
%Job = type { ptr, ptr, ptr, i64, i64, ptr, i64, i64 }
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @posix_memalign(ptr, i64, i64)

; Claim chunks of the job until none is left.
define internal void @claim(ptr %pool, i64 %worker) {
entry:
  %job = getelementptr i8, ptr %pool, i64 $JOB
  %next = getelementptr i8, ptr %pool, i64 $NEXT
  %function = load ptr, ptr %job
  %buffers.at = getelementptr %Job, ptr %job, i64 0, i32 1
  %buffers = load ptr, ptr %buffers.at
  %sizes.at = getelementptr %Job, ptr %job, i64 0, i32 2
  %sizes = load ptr, ptr %sizes.at
  %extent.at = getelementptr %Job, ptr %job, i64 0, i32 3
  %extent = load i64, ptr %extent.at
  %grain.at = getelementptr %Job, ptr %job, i64 0, i32 4
  %grain = load i64, ptr %grain.at
  %scratch.at = getelementptr %Job, ptr %job, i64 0, i32 5
  %scratch = load ptr, ptr %scratch.at
  %stride.at = getelementptr %Job, ptr %job, i64 0, i32 6
  %stride = load i64, ptr %stride.at
  %offset = mul i64 %stride, %worker
  %mine = getelementptr i8, ptr %scratch, i64 %offset
  %parts.at = getelementptr %Job, ptr %job, i64 0, i32 7
  %parts = load i64, ptr %parts.at
  br label %again
again:                                             ; a part of what is left, in whole grains, one at least
  %begin = load atomic i64, ptr %next monotonic, align 8
  %left = sub i64 %extent, %begin
  %some = icmp sgt i64 %left, 0
  br i1 %some, label %take, label %out
take:
  %share = udiv i64 %left, %parts
  %grains = udiv i64 %share, %grain
  %several = call i64 @llvm.smax.i64(i64 %grains, i64 1)
  %length = mul i64 %several, %grain
  %full = add i64 %begin, %length
  %swap = cmpxchg ptr %next, i64 %begin, i64 %full monotonic monotonic
  %taken = extractvalue { i64, i1 } %swap, 1
  br i1 %taken, label %run, label %again
run:
  %whole = icmp slt i64 %full, %extent
  %end = select i1 %whole, i64 %full, i64 %extent
  %status = call i32 %function(i64 %begin, i64 %end, ptr %buffers, ptr %sizes, i64 %worker, ptr %mine)
  %fine = icmp eq i32 %status, 0
  br i1 %fine, label %again, label %failed
failed:
  %status.at = getelementptr i8, ptr %pool, i64 $STATUS
  atomicrmw umin ptr %status.at, i32 %status monotonic
  br label %again
out:
  ret void
}

define internal ptr @worker(ptr %slot) {
entry:
  %since = alloca i64
  %pool = load ptr, ptr %slot
  %index.at = getelementptr %Slot, ptr %slot, i64 0, i32 1
  %index = load i64, ptr %index.at
  %settings = getelementptr i8, ptr %pool, i64 $SETTINGS
  %sleepers = getelementptr i8, ptr %pool, i64 $SLEEPERS
  %epoch.at = getelementptr i8, ptr %pool, i64 4  ; the upper half of the state (little endian)
  br label %wait
wait:
  %served = phi i64 [ 0, %entry ], [ %epoch, %leave ], [ %epoch, %left ], [ %served.now, %asleep ]
  br label %look
look:
  %turn = phi i64 [ 0, %wait ], [ %turn.next, %idle ], [ %turn, %enter ]
  $DELAY
  %state = load atomic i64, ptr %pool acquire, align 8
  %stop = and i64 %state, $STOP
  %stopping = icmp ne i64 %stop, 0
  br i1 %stopping, label %quit, label %judge
judge:
  %epoch = lshr i64 %state, 32
  %fresh = icmp ne i64 %epoch, %served
  %open = and i64 %state, $OPEN
  %is.open = icmp ne i64 %open, 0
  %serve = and i1 %fresh, %is.open
  br i1 %serve, label %enter, label %idle
enter:
  $DELAY
  %more = add i64 %state, 1
  %swap = cmpxchg ptr %pool, i64 %state, i64 %more acq_rel monotonic
  %entered = extractvalue { i64, i1 } %swap, 1
  br i1 %entered, label %serving, label %look
serving:
  $DELAY
  call void @leave_cpu(ptr %pool, ptr %slot)
  call void @claim(ptr %pool, i64 %index)
  $DELAY
  %before = atomicrmw sub ptr %pool, i64 1 acq_rel
  %mask = and i64 %before, $WAITING_AND_ACTIVE
  %last = icmp eq i64 %mask, $WAITING_AND_ONE
  br i1 %last, label %left, label %leave
left:                                              ; the leader sleeps until the last one leaves
  call void @wake(ptr %pool, ptr %pool, i32 1)
  br label %wait
leave:
  br label %wait
idle:
  %turn.next = add i64 %turn, 1
  %tired = call i1 @linger(ptr %settings, ptr %since, i64 %turn)
  br i1 %tired, label %sleep, label %look
sleep:                                             ; this epoch is served or closed: wait for another
  %expected = trunc i64 %epoch to i32
  atomicrmw add ptr %sleepers, i32 1 seq_cst
  $DELAY
  call void @wait(ptr %pool, ptr %epoch.at, i32 %expected)
  atomicrmw sub ptr %sleepers, i32 1 seq_cst
  br label %asleep
asleep:
  %served.now = phi i64 [ %served, %sleep ]
  br label %wait
quit:
  ret ptr null
}

; Start the workers.  Signals stay with the threads of Python.
define internal void @start(ptr %pool) {
entry:
  %all = alloca [128 x i8]
  %old = alloca [128 x i8]
  call void @llvm.memset.p0.i64(ptr %all, i8 -1, i64 128, i1 false)
  %settings = getelementptr i8, ptr %pool, i64 $SETTINGS
  %threads = load i32, ptr %settings
  %running.at = getelementptr %Settings, ptr %settings, i64 0, i32 1
  call void @wait_init(ptr %pool)
  call i32 @pthread_sigmask(i32 $BLOCK_SIGNALS, ptr %all, ptr %old)
  br label %next
next:
  %i = phi i32 [ 1, %entry ], [ %i.next, %started ]
  %want = icmp slt i32 %i, %threads
  br i1 %want, label %create, label %done
create:
  %index = zext i32 %i to i64
  %offset = mul i64 %index, $SLOT_BYTES
  %slots = getelementptr i8, ptr %pool, i64 $SLOTS
  %slot = getelementptr i8, ptr %slots, i64 %offset
  store ptr %pool, ptr %slot
  %index.at = getelementptr %Slot, ptr %slot, i64 0, i32 1
  store i64 %index, ptr %index.at
  %thread.at = getelementptr %Slot, ptr %slot, i64 0, i32 2
  %error = call i32 @pthread_create(ptr %thread.at, ptr null, ptr @worker, ptr %slot)
  %ok = icmp eq i32 %error, 0
  br i1 %ok, label %started, label %done            ; the system has no more threads: fewer serve as well
started:
  %i.next = add i32 %i, 1
  br label %next
done:
  %running = sub i32 %i, 1
  %capped = call i32 @llvm.smax.i32(i32 %running, i32 0)
  store i32 %capped, ptr %running.at
  call i32 @pthread_sigmask(i32 $SET_SIGNALS, ptr %old, ptr null)
  ret void
}
declare i32 @llvm.smax.i32(i32, i32)
declare i64 @llvm.smax.i64(i64, i64)

; Run one CALL step (driver.py) over the pool; alone where the pool is taken or waking would not pay.
define internal i32 @fork_join(ptr %pool, ptr %step, ptr %scratch, i64 %stride) {
entry:
  %since = alloca i64
  %lease = getelementptr i8, ptr %pool, i64 $LEASE
  %settings = getelementptr i8, ptr %pool, i64 $SETTINGS
  %sleepers = getelementptr i8, ptr %pool, i64 $SLEEPERS
  %debt.at = getelementptr i8, ptr %lease, i64 8
  %started.at = getelementptr i8, ptr %lease, i64 16
  %function = load ptr, ptr %step
  %buffers.at = getelementptr %Step, ptr %step, i64 0, i32 1
  %buffers = load ptr, ptr %buffers.at
  %sizes.at = getelementptr %Step, ptr %step, i64 0, i32 2
  %sizes = load ptr, ptr %sizes.at
  %extent.at = getelementptr %Step, ptr %step, i64 0, i32 3
  %extent = load i64, ptr %extent.at
  %grain.at = getelementptr %Step, ptr %step, i64 0, i32 4
  %grain = load i64, ptr %grain.at
  %work.at = getelementptr %Step, ptr %step, i64 0, i32 5
  %work = load i64, ptr %work.at
  %swap = cmpxchg ptr %lease, i32 0, i32 1 acquire monotonic
  %mine = extractvalue { i32, i1 } %swap, 1
  br i1 %mine, label %leased, label %alone
leased:
  %started = load i32, ptr %started.at
  %is.started = icmp ne i32 %started, 0
  br i1 %is.started, label %ready, label %launch
launch:
  store i32 1, ptr %started.at
  call void @start(ptr %pool)
  br label %ready
ready:
  %running.at = getelementptr %Settings, ptr %settings, i64 0, i32 1
  %workers = load i32, ptr %running.at
  %asleep = load atomic i32, ptr %sleepers monotonic, align 4
  %none.asleep = icmp eq i32 %asleep, 0
  br i1 %none.asleep, label %publish, label %weigh
weigh:                                             ; waking pays once enough work went by without it
  %debt = load i64, ptr %debt.at
  %owed = add i64 %debt, %work
  %rouse = icmp sge i64 %owed, $WAKE_NS
  %debt.now = select i1 %rouse, i64 0, i64 %owed
  store i64 %debt.now, ptr %debt.at
  %all.asleep = icmp sge i32 %asleep, %workers
  %not.rouse = xor i1 %rouse, true
  %give.up = and i1 %all.asleep, %not.rouse
  br i1 %give.up, label %refuse, label %publish
refuse:
  store atomic i32 0, ptr %lease release, align 4
  br label %alone
publish:
  %wakes = phi i1 [ false, %ready ], [ %rouse, %weigh ]
  call void @tell_cpu(ptr %pool)
  %job = getelementptr i8, ptr %pool, i64 $JOB
  store ptr %function, ptr %job
  %job.buffers = getelementptr %Job, ptr %job, i64 0, i32 1
  store ptr %buffers, ptr %job.buffers
  %job.sizes = getelementptr %Job, ptr %job, i64 0, i32 2
  store ptr %sizes, ptr %job.sizes
  %job.extent = getelementptr %Job, ptr %job, i64 0, i32 3
  store i64 %extent, ptr %job.extent
  %job.grain = getelementptr %Job, ptr %job, i64 0, i32 4
  store i64 %grain, ptr %job.grain
  %job.scratch = getelementptr %Job, ptr %job, i64 0, i32 5
  store ptr %scratch, ptr %job.scratch
  %job.stride = getelementptr %Job, ptr %job, i64 0, i32 6
  store i64 %stride, ptr %job.stride
  %job.parts = getelementptr %Job, ptr %job, i64 0, i32 7
  %sharing = add i32 %workers, 1
  %sharing.wide = zext i32 %sharing to i64
  %parts = mul i64 %sharing.wide, $SHARES
  store i64 %parts, ptr %job.parts
  %next = getelementptr i8, ptr %pool, i64 $NEXT
  store atomic i64 0, ptr %next monotonic, align 8
  %status.at = getelementptr i8, ptr %pool, i64 $STATUS
  store atomic i32 -1, ptr %status.at monotonic, align 4
  %state = load atomic i64, ptr %pool monotonic, align 8
  %epoch = lshr i64 %state, 32
  %epoch.next = add i64 %epoch, 1
  %upper = shl i64 %epoch.next, 32
  %opened = or i64 %upper, $OPEN
  $DELAY
  store atomic i64 %opened, ptr %pool seq_cst, align 8
  $DELAY
  %asleep.now = load atomic i32, ptr %sleepers seq_cst, align 4
  %any = icmp ne i32 %asleep.now, 0
  %call = and i1 %any, %wakes
  br i1 %call, label %rouse.them, label %work.too
rouse.them:
  %epoch.at = getelementptr i8, ptr %pool, i64 4
  %less = sub i64 %extent, 1
  %chunks = sdiv i64 %less, %grain                 ; chunks besides the leader's own
  %workers.wide = zext i32 %workers to i64
  %few = icmp slt i64 %chunks, %workers.wide
  %wanted = select i1 %few, i64 %chunks, i64 %workers.wide
  %count = trunc i64 %wanted to i32
  call void @wake(ptr %pool, ptr %epoch.at, i32 %count)
  br label %work.too
work.too:
  call void @claim(ptr %pool, i64 0)
  $DELAY
  atomicrmw and ptr %pool, i64 $NOT_OPEN acq_rel
  br label %join
join:
  %turn = phi i64 [ 0, %work.too ], [ %turn.next, %linger ], [ 0, %slept ]
  %seen = load atomic i64, ptr %pool acquire, align 8
  %active = and i64 %seen, $ACTIVE
  %joined = icmp eq i64 %active, 0
  br i1 %joined, label %done, label %linger
linger:
  %turn.next = add i64 %turn, 1
  %tired = call i1 @linger(ptr %settings, ptr %since, i64 %turn)
  br i1 %tired, label %sleep, label %join
sleep:
  %flagged.before = atomicrmw or ptr %pool, i64 $WAITING seq_cst
  $DELAY
  %still = and i64 %flagged.before, $ACTIVE
  %gone = icmp eq i64 %still, 0
  br i1 %gone, label %slept, label %doze
doze:
  %flagged = or i64 %flagged.before, $WAITING
  %expected = trunc i64 %flagged to i32
  call void @wait(ptr %pool, ptr %pool, i32 %expected)
  br label %slept
slept:
  br label %join
done:
  %worst = load atomic i32, ptr %status.at monotonic, align 4
  %none = icmp eq i32 %worst, -1
  %status = select i1 %none, i32 0, i32 %worst
  store atomic i32 0, ptr %lease release, align 4
  ret i32 %status
alone:
  %status.alone = call i32 %function(i64 0, i64 %extent, ptr %buffers, ptr %sizes, i64 0, ptr %scratch)
  ret i32 %status.alone
}

; Make a pool of %threads (the calling one included), each on a CPU of its own where %spread says that there
; are enough; null where there is no memory.
define ptr @graphc_pool_new(i32 %threads, i64 %spin, i64 %yield, i32 %spread) {
entry:
  %out = alloca ptr
  %wide = zext i32 %threads to i64
  %slots = mul i64 %wide, $SLOT_BYTES
  %bytes = add i64 %slots, $SLOTS
  %error = call i32 @posix_memalign(ptr %out, i64 128, i64 %bytes)
  %bad = icmp ne i32 %error, 0
  br i1 %bad, label %none, label %fill
none:
  ret ptr null
fill:
  %pool = load ptr, ptr %out
  call void @llvm.memset.p0.i64(ptr %pool, i8 0, i64 %bytes, i1 false)
  %settings = getelementptr i8, ptr %pool, i64 $SETTINGS
  store i32 %threads, ptr %settings
  %spin.at = getelementptr %Settings, ptr %settings, i64 0, i32 2
  store i64 %spin, ptr %spin.at
  %yield.at = getelementptr %Settings, ptr %settings, i64 0, i32 3
  store i64 %yield, ptr %yield.at
  %spread.at = getelementptr %Settings, ptr %settings, i64 0, i32 4
  store i32 %spread, ptr %spread.at
  ret ptr %pool
}

; Forget the workers without a word to them: in the child of a fork they do not exist.
define void @graphc_pool_forget(ptr %pool) {
  call void @llvm.memset.p0.i64(ptr %pool, i8 0, i64 $SETTINGS, i1 false)
  %settings = getelementptr i8, ptr %pool, i64 $SETTINGS
  %running.at = getelementptr %Settings, ptr %settings, i64 0, i32 1
  store i32 0, ptr %running.at
  ret void
}

; End the workers; the next step that pays starts new ones.
define void @graphc_pool_stop(ptr %pool) {
entry:
  %lease = getelementptr i8, ptr %pool, i64 $LEASE
  br label %take
take:
  %swap = cmpxchg ptr %lease, i32 0, i32 1 acquire monotonic
  %mine = extractvalue { i32, i1 } %swap, 1
  br i1 %mine, label %close, label %busy
busy:
  call i32 @sched_yield()
  br label %take
close:
  %settings = getelementptr i8, ptr %pool, i64 $SETTINGS
  %running.at = getelementptr %Settings, ptr %settings, i64 0, i32 1
  %running = load i32, ptr %running.at
  %state = load atomic i64, ptr %pool monotonic, align 8
  %epoch = lshr i64 %state, 32
  %epoch.next = add i64 %epoch, 1
  %upper = shl i64 %epoch.next, 32
  %closed = or i64 %upper, $STOP
  store atomic i64 %closed, ptr %pool seq_cst, align 8
  %epoch.at = getelementptr i8, ptr %pool, i64 4
  call void @wake(ptr %pool, ptr %epoch.at, i32 2147483647)
  br label %next
next:
  %i = phi i32 [ 1, %close ], [ %i.next, %join ]
  %more = icmp sle i32 %i, %running
  br i1 %more, label %join, label %done
join:
  %index = zext i32 %i to i64
  %offset = mul i64 %index, $SLOT_BYTES
  %slots = getelementptr i8, ptr %pool, i64 $SLOTS
  %slot = getelementptr i8, ptr %slots, i64 %offset
  %thread.at = getelementptr %Slot, ptr %slot, i64 0, i32 2
  %thread = load i64, ptr %thread.at
  call i32 @pthread_join(i64 %thread, ptr null)
  %i.next = add i32 %i, 1
  br label %next
done:
  call void @graphc_pool_forget(ptr %pool)
  ret void
}
"""


def pool_text(where: Platform, delay: str = "") -> str:
    """Return the pool's code as LLVM IR.  `delay`: IR put wherever threads race (tests)."""
    return waiting_text(where) + Template(_POOL).substitute(
        BLOCK_SIGNALS=where.block_signals, SET_SIGNALS=where.block_signals + 2, DELAY=delay,
        JOB=JOB, NEXT=NEXT, STATUS=STATUS, SLEEPERS=SLEEPERS, LEASE=LEASE, SETTINGS=SETTINGS,
        SLOTS=SLOTS, SLOT_BYTES=SLOT_BYTES, OPEN=OPEN, STOP=STOP, WAITING=WAITING, ACTIVE=ACTIVE,
        NOT_OPEN=~OPEN, WAITING_AND_ACTIVE=WAITING | ACTIVE, WAITING_AND_ONE=WAITING | 1, WAKE_NS=WAKE_NS,
        SHARES=SHARES)

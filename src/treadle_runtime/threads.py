"""The thread pool: native workers that spin, then sleep, and ``treadle.parallel_for`` over them.

The workers run a loop compiled from LLVM IR on threads that Python owns. A caller publishes a job
by raising the generation word; each worker that has a chunk runs it and lowers the pending count.
Both words have cache lines of their own. A worker that has spun in vain sleeps on a futex.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template
from types import TracebackType

import numpy as np

from treadle_runtime.errors import OptionError, RuntimeFault
from treadle_runtime.loader import LoadedCode, load_text

MAX_THREADS = 1024

# The shared state: byte offsets, 128 apart because CPUs fetch cache lines in pairs.
_OFFSETS = {
    "generation": 0,  # i64: job number << 16 | number of chunks; only the owner of the lock writes
    "pending": 128,  # i32: chunks of the current job that workers still run
    "waiting": 132,  # i32: whether the caller sleeps until pending is 0
    "job": 256,  # ptr body, ptr context, i64 count
    "lock": 384,  # i32: taken by the caller whose job runs
    "threads": 512,  # i64: workers and the caller
    "sleepers": 640,  # i32: workers that sleep or are about to
    "epoch": 644,  # i32: raised to wake the sleepers
}
_STATE_BYTES = 768
_STOP = 0xFFFF  # this number of chunks means: workers, go home
_SPINS = 20_000

# Numbers of the futex system call.
_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98}

_FUTEX_WAIT = """
declare i64 @syscall(i64, ...)
define internal void @wait(ptr %word, i32 %value) {
  %r = call i64 (i64, ...) @syscall(i64 $futex, ptr %word, i32 128, i32 %value, ptr null)
  ret void
}
define internal void @wake(ptr %word) {
  %r = call i64 (i64, ...) @syscall(i64 $futex, ptr %word, i32 129, i32 2147483647)
  ret void
}
"""

# Without futexes a sleeper looks again every 50 microseconds, and nobody needs to wake it.
_POLLING_WAIT = """
declare i32 @usleep(i32)
define internal void @wait(ptr %word, i32 %value) {
  %r = call i32 @usleep(i32 50)
  ret void
}
define internal void @wake(ptr %word) {
  ret void
}
"""

_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
}

_LOOP = """
$pause_declaration
declare i32 @sched_yield()

; One step of waiting; now and then the CPU goes to whoever else wants it.
define internal void @relax(i32 %spins) alwaysinline {
entry:
  $pause
  %low = and i32 %spins, 255
  %often = icmp ne i32 %low, 255
  br i1 %often, label %exit, label %yield
yield:
  %r = call i32 @sched_yield()
  br label %exit
exit:
  ret void
}

define internal void @run_chunk(ptr %body, ptr %context, i64 %count, i64 %chunks, i64 %index) {
  %size = udiv i64 %count, %chunks
  %rest = urem i64 %count, %chunks
  %end.index = add i64 %index, 1
  %shift = call i64 @llvm.umin.i64(i64 %index, i64 %rest)
  %end.shift = call i64 @llvm.umin.i64(i64 %end.index, i64 %rest)
  %scaled = mul i64 %index, %size
  %end.scaled = mul i64 %end.index, %size
  %begin = add i64 %scaled, %shift
  %end = add i64 %end.scaled, %end.shift
  call void %body(ptr %context, i64 %begin, i64 %end)
  ret void
}

define void @treadle.worker(ptr %state, i64 %index) {
entry:
  %pending = getelementptr i8, ptr %state, i64 $pending
  %waiting = getelementptr i8, ptr %state, i64 $waiting
  %job = getelementptr i8, ptr %state, i64 $job
  %job.context = getelementptr i8, ptr %job, i64 8
  %job.count = getelementptr i8, ptr %job, i64 16
  %sleepers = getelementptr i8, ptr %state, i64 $sleepers
  %epoch = getelementptr i8, ptr %state, i64 $epoch
  br label %idle
idle:
  %seen = phi i64 [ 0, %entry ], [ %seen, %awake ], [ %word, %done ]
  br label %look
look:
  %spins = phi i32 [ 0, %idle ], [ %spins.next, %pause ]
  %word = load atomic i64, ptr %state acquire, align 8
  %changed = icmp ne i64 %word, %seen
  br i1 %changed, label %published, label %pause
pause:
  call void @relax(i32 %spins)
  %spins.next = add i32 %spins, 1
  %again = icmp ult i32 %spins.next, $spins
  br i1 %again, label %look, label %sleep
sleep:
  %now = load atomic i32, ptr %epoch seq_cst, align 4
  %before = atomicrmw add ptr %sleepers, i32 1 seq_cst
  %last = load atomic i64, ptr %state seq_cst, align 8
  %nothing = icmp eq i64 %last, %seen
  br i1 %nothing, label %block, label %awake
block:
  call void @wait(ptr %epoch, i32 %now)
  br label %awake
awake:
  %after = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  br label %idle
published:
  %chunks = and i64 %word, 65535
  %stop = icmp eq i64 %chunks, $stop
  br i1 %stop, label %exit, label %choose
choose:
  %mine = icmp ult i64 %index, %chunks
  br i1 %mine, label %work, label %done
work:
  %body = load ptr, ptr %job, align 8
  %context = load ptr, ptr %job.context, align 8
  %count = load i64, ptr %job.count, align 8
  call void @run_chunk(ptr %body, ptr %context, i64 %count, i64 %chunks, i64 %index)
  %left = atomicrmw sub ptr %pending, i32 1 seq_cst
  %finished = icmp eq i32 %left, 1
  br i1 %finished, label %tell, label %done
tell:
  %sleeping = load atomic i32, ptr %waiting seq_cst, align 4
  %must.wake = icmp ne i32 %sleeping, 0
  br i1 %must.wake, label %wake.caller, label %done
wake.caller:
  call void @wake(ptr %pending)
  br label %done
done:
  br label %idle
exit:
  ret void
}

define internal void @publish(ptr %state, i64 %chunks) {
entry:
  %sleepers = getelementptr i8, ptr %state, i64 $sleepers
  %epoch = getelementptr i8, ptr %state, i64 $epoch
  %old = load atomic i64, ptr %state monotonic, align 8
  %number = lshr i64 %old, 16
  %next = add i64 %number, 1
  %high = shl i64 %next, 16
  %word = or i64 %high, %chunks
  store atomic i64 %word, ptr %state seq_cst, align 8
  %asleep = load atomic i32, ptr %sleepers seq_cst, align 4
  %any = icmp ne i32 %asleep, 0
  br i1 %any, label %wake, label %exit
wake:
  %before = atomicrmw add ptr %epoch, i32 1 seq_cst
  call void @wake(ptr %epoch)
  br label %exit
exit:
  ret void
}

define internal void @join(ptr %state) {
entry:
  %pending = getelementptr i8, ptr %state, i64 $pending
  %waiting = getelementptr i8, ptr %state, i64 $waiting
  br label %look
look:
  %spins = phi i32 [ 0, %entry ], [ %spins.next, %pause ]
  %left = load atomic i32, ptr %pending acquire, align 4
  %finished = icmp eq i32 %left, 0
  br i1 %finished, label %exit, label %pause
pause:
  call void @relax(i32 %spins)
  %spins.next = add i32 %spins, 1
  %again = icmp ult i32 %spins.next, $spins
  br i1 %again, label %look, label %sleep
sleep:
  store atomic i32 1, ptr %waiting seq_cst, align 4
  br label %check
check:
  %now = load atomic i32, ptr %pending seq_cst, align 4
  %over = icmp eq i32 %now, 0
  br i1 %over, label %awake, label %block
block:
  call void @wait(ptr %pending, i32 %now)
  br label %check
awake:
  store atomic i32 0, ptr %waiting seq_cst, align 4
  br label %exit
exit:
  ret void
}

define void @treadle.parallel_for(ptr %pool, ptr %body, ptr %context, i64 %count, i64 %grain) {
entry:
  %serial = icmp eq ptr %pool, null
  br i1 %serial, label %whole, label %divide
whole:
  call void %body(ptr %context, i64 0, i64 %count)
  ret void
divide:
  %threads.at = getelementptr i8, ptr %pool, i64 $threads
  %threads = load atomic i64, ptr %threads.at monotonic, align 8
  %least = call i64 @llvm.smax.i64(i64 %grain, i64 1)
  %worth = sdiv i64 %count, %least
  %chunks = call i64 @llvm.smin.i64(i64 %worth, i64 %threads)
  %several = icmp sgt i64 %chunks, 1
  br i1 %several, label %try, label %whole
try:
  %lock = getelementptr i8, ptr %pool, i64 $lock
  %taken = cmpxchg ptr %lock, i32 0, i32 1 acquire monotonic
  %mine = extractvalue { i32, i1 } %taken, 1
  br i1 %mine, label %fork, label %alone
alone:
  %i = phi i64 [ 0, %try ], [ %i.next, %alone ]
  call void @run_chunk(ptr %body, ptr %context, i64 %count, i64 %chunks, i64 %i)
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %chunks
  br i1 %more, label %alone, label %finish
fork:
  %pending = getelementptr i8, ptr %pool, i64 $pending
  %job = getelementptr i8, ptr %pool, i64 $job
  %job.context = getelementptr i8, ptr %job, i64 8
  %job.count = getelementptr i8, ptr %job, i64 16
  store ptr %body, ptr %job, align 8
  store ptr %context, ptr %job.context, align 8
  store i64 %count, ptr %job.count, align 8
  %chunks.small = trunc i64 %chunks to i32
  %helpers = sub i32 %chunks.small, 1
  store atomic i32 %helpers, ptr %pending monotonic, align 4
  call void @publish(ptr %pool, i64 %chunks)
  call void @run_chunk(ptr %body, ptr %context, i64 %count, i64 %chunks, i64 0)
  call void @join(ptr %pool)
  store atomic i32 0, ptr %lock release, align 4
  br label %finish
finish:
  ret void
}

define void @treadle.stop(ptr %state) {
entry:
  %lock = getelementptr i8, ptr %state, i64 $lock
  %threads.at = getelementptr i8, ptr %state, i64 $threads
  store atomic i64 1, ptr %threads.at monotonic, align 8
  br label %try
try:
  %taken = cmpxchg ptr %lock, i32 0, i32 1 acquire monotonic
  %mine = extractvalue { i32, i1 } %taken, 1
  br i1 %mine, label %send, label %pause
pause:
  %r = call i32 @sched_yield()
  br label %try
send:
  call void @publish(ptr %state, i64 $stop)
  ret void
}

declare i64 @llvm.umin.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
"""


def threads_ir(machine: str, *, futex: bool, spins: int = _SPINS) -> str:
    """The LLVM IR of the worker loop and of ``treadle.parallel_for`` for a kind of CPU.

    ``machine`` is a name as in ``uname -m``; ``futex`` asks for Linux futexes, else sleepers poll;
    ``spins`` is how often a thread looks before it sleeps.
    """
    declaration, pause = _PAUSE.get(machine, ("", ""))
    text = (_FUTEX_WAIT if futex else _POLLING_WAIT) + _LOOP
    return Template(text).substitute(
        {name: str(offset) for name, offset in _OFFSETS.items()},
        futex=_FUTEX.get(machine, 0),
        spins=spins,
        stop=_STOP,
        pause=pause,
        pause_declaration=declaration,
    )


@dataclass(frozen=True)
class NativeThreads:
    """The compiled pool: addresses of its functions, and the code that holds them."""

    code: LoadedCode

    @classmethod
    def build(cls, *, futex: bool | None = None, spins: int = _SPINS) -> NativeThreads:
        """Compile the pool for this CPU; ``futex`` None means: if the system has them."""
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
            os.uname().machine, os.uname().machine
        )
        if futex is None:
            futex = sys.platform == "linux" and machine in _FUTEX
        exports = ("treadle.parallel_for", "treadle.worker", "treadle.stop")
        return cls(load_text(threads_ir(machine, futex=futex, spins=spins), exports))

    @property
    def parallel_for(self) -> int:
        """Address of ``void treadle.parallel_for(pool, body, context, i64 count, i64 grain)``."""
        return self.code["treadle.parallel_for"]


# Two first callers must not get two copies of the code: the one not kept would be unloaded.
_COMPILING = threading.Lock()


def native_threads() -> NativeThreads:
    """The compiled pool of this process; compiled on the first call, kept until the end."""
    with _COMPILING:
        return _native_threads()


@cache
def _native_threads() -> NativeThreads:
    return NativeThreads.build()


def runtime_symbols() -> dict[str, int]:
    """Addresses of the functions that generated code takes from the run time."""
    return {"treadle.parallel_for": native_threads().parallel_for}


def available_threads() -> int:
    """The number of CPUs that this process may use: its affinity, and its container's quota."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, min(count, _quota(Path("/sys/fs/cgroup")) or count))


def _quota(folder: Path) -> int | None:
    """The CPUs that a Linux control group allows, rounded up; None where it sets no limit."""
    try:
        if (folder / "cpu.max").exists():
            limit, period = (folder / "cpu.max").read_text().split()
        else:
            limit = (folder / "cpu/cpu.cfs_quota_us").read_text()
            period = (folder / "cpu/cpu.cfs_period_us").read_text()
        return -(-int(limit) // int(period)) if int(limit) > 0 and int(period) > 0 else None
    except (OSError, ValueError):  # no such group, or the limit is the word "max"
        return None


class Pool:
    """Worker threads that share the parallel loops of compiled code; a context manager.

    Any number of Python threads may use one pool: while it is busy, a caller runs its loop alone,
    over the same chunks. ``close`` (or the end of the program) wakes and joins the workers; after
    it, loops run serially.

    Raises ``OptionError`` E0801 for a number of threads outside 1 to 1024, and ``RuntimeFault``
    E0750 when the system gives no more threads.
    """

    def __init__(self, threads: int | None = None, *, native: NativeThreads | None = None) -> None:
        count = available_threads() if threads is None else threads
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_THREADS:
            raise OptionError(
                "E0801",
                f"a pool cannot have {count!r} threads",
                help=f"pass a whole number from 1 to {MAX_THREADS}, or nothing for one per CPU",
            )
        self.threads = count
        code = (native or native_threads()).code
        raw = np.zeros(_STATE_BYTES + 128, np.uint8)
        base = raw.ctypes.data
        start = -base % 128
        state = base + start
        raw[start + _OFFSETS["threads"] :][:8].view(np.int64)[0] = count
        run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(code["treadle.worker"])
        stop = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(code["treadle.stop"])
        workers: list[threading.Thread] = []
        self._state = raw
        self._address = 0 if count == 1 else state
        # The finalizer holds the memory and the code: they outlive the last worker.
        self._finalizer = weakref.finalize(self, _stop, stop, state, workers, (raw, code))
        for index in range(1, count):
            name = f"treadle-worker-{index}"
            worker = threading.Thread(target=run, args=(state, index), name=name, daemon=True)
            try:
                worker.start()
            except RuntimeError as error:
                self.close()
                raise RuntimeFault(
                    "E0750",
                    f"the system gave only {index} of {count} threads",
                    notes=(str(error),),
                    help=f"use Pool({index}) or raise the limit on threads",
                ) from error
            workers.append(worker)
        self._survive_forks()

    @property
    def address(self) -> int:
        """The pool as generated code wants it: a pointer, or 0 for serial."""
        return self._address

    def close(self) -> None:
        """Wait for a running loop, then end the workers; closing twice does nothing."""
        self._address = 0
        self._finalizer()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Pool({self.threads})" if self._finalizer.alive else "Pool(closed)"

    def _survive_forks(self) -> None:
        """Make the pool serial in processes forked from here: its workers do not come along."""
        reference = weakref.ref(self)

        def abandon_in_child() -> None:
            pool = reference()
            if pool is not None:
                pool._address = 0
                pool._finalizer.detach()

        os.register_at_fork(after_in_child=abandon_in_child)


def _stop(stop: object, state: int, workers: list[threading.Thread], keep: object) -> None:
    assert callable(stop)
    stop(state)
    for worker in workers:
        # A collection of garbage may end a pool from inside one of its own dying workers.
        if worker is not threading.current_thread():
            worker.join()
    del keep

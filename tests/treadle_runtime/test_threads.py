import ctypes
import gc
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle_runtime.errors import OptionError
from treadle_runtime.loader import load_text
from treadle_runtime.threads import (
    NativeThreads,
    Pool,
    _quota,
    native_threads,
    runtime_symbols,
    threads_ir,
)

PARALLEL_FOR = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
)
BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)

# body: adds 1 to each i64 of its range; repeat: one parallel loop after another.
COUNTING = """
declare void @treadle.parallel_for(ptr, ptr, ptr, i64, i64)
define void @count(ptr %a, i64 %begin, i64 %end) {
entry:
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %loop, label %exit
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %loop ]
  %p = getelementptr i64, ptr %a, i64 %i
  %v = load i64, ptr %p
  %w = add i64 %v, 1
  store i64 %w, ptr %p
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %loop, label %exit
exit:
  ret void
}
define void @repeat(ptr %pool, ptr %a, i64 %n, i64 %times) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  call void @treadle.parallel_for(ptr %pool, ptr @count, ptr %a, i64 %n, i64 1)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %times
  br i1 %more, label %loop, label %exit
exit:
  ret void
}
"""


def chunks_of(pool, count, grain, native=None):
    """Run a loop whose body notes its chunks, in Python."""
    seen = []
    body = BODY(lambda context, begin, end: seen.append((begin, end, threading.get_ident())))
    call = PARALLEL_FOR((native or native_threads()).parallel_for)
    call(pool, ctypes.cast(body, ctypes.c_void_p), None, count, grain)
    return sorted(seen)


@pytest.fixture(scope="module")
def counting():
    code = load_text(COUNTING, ["repeat", "count"], runtime_symbols())
    types = (None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    repeat = ctypes.CFUNCTYPE(*types)(code["repeat"])
    yield repeat
    del code


@given(count=st.integers(0, 300), grain=st.integers(-1, 100))
@settings(max_examples=60, deadline=None)
def test_chunks_cover_the_range_once_and_are_nearly_equal(three, count, grain):
    chunks = chunks_of(three.address, count, grain)
    assert [begin for begin, _, _ in chunks] == [0, *(end for _, end, _ in chunks[:-1])]
    assert chunks[-1][1] == count
    assert len(chunks) == max(1, min(3, count // max(grain, 1)))
    sizes = [end - begin for begin, end, _ in chunks]
    assert max(sizes) - min(sizes) <= 1
    assert chunks[0][2] == threading.get_ident()


@pytest.fixture(scope="module")
def three():
    with Pool(3) as pool:
        yield pool


def test_each_chunk_runs_on_its_own_thread(three):
    assert len({thread for _, _, thread in chunks_of(three.address, 30, 1)}) == 3


def test_no_pool_means_the_caller_runs_everything():
    assert chunks_of(0, 7, 1) == [(0, 7, threading.get_ident())]
    with Pool(1) as pool:
        assert pool.address == 0


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_many_loops_lose_no_iteration(counting, threads):
    a = np.zeros(17, np.int64)
    with Pool(threads) as pool:
        counting(pool.address, a.ctypes.data, a.size, 300)
        time.sleep(0.05)  # long enough for the workers to fall asleep
        counting(pool.address, a.ctypes.data, a.size, 200)
    assert (a == 500).all()


def test_polling_without_futexes_works_too():
    native = NativeThreads.build(futex=False)
    with Pool(2, native=native) as pool:
        for pause in (0, 0.03):
            time.sleep(pause)
            assert len(chunks_of(pool.address, 10, 1, native)) == 2


@pytest.mark.parametrize("spins", [1, 30, 300])
def test_no_wake_is_lost_when_threads_fall_asleep_at_once(spins):
    native = NativeThreads.build(spins=spins)
    code = load_text(COUNTING, ["repeat"], {"treadle.parallel_for": native.parallel_for})
    types = (None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    repeat = ctypes.CFUNCTYPE(*types)(code["repeat"])
    a = np.zeros(17, np.int64)
    with Pool(3, native=native) as pool:
        repeat(pool.address, a.ctypes.data, a.size, 2000)
    assert (a == 2000).all()


def test_callers_of_a_busy_pool_run_alone_on_the_same_chunks(counting):
    arrays = [np.zeros(64, np.int64) for _ in range(8)]
    with Pool(2) as pool:
        callers = [
            threading.Thread(target=counting, args=(pool.address, a.ctypes.data, a.size, 500))
            for a in arrays
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert all((a == 500).all() for a in arrays)


def test_a_loop_inside_a_loop_runs_serially_on_the_same_chunks():
    inner = []
    with Pool(2) as pool:
        address = pool.address
        body = BODY(lambda context, begin, end: inner.append(chunks_of(address, 10, 1)))
        call = PARALLEL_FOR(native_threads().parallel_for)
        call(address, ctypes.cast(body, ctypes.c_void_p), None, 2, 1)
    assert [[c[:2] for c in chunks] for chunks in inner] == [[(0, 5), (5, 10)]] * 2


def test_closing_ends_the_workers_and_leaves_a_serial_pool():
    before = threading.active_count()
    pool = Pool(3)
    assert threading.active_count() == before + 2
    pool.close()
    pool.close()
    assert threading.active_count() == before
    assert pool.address == 0
    assert repr(pool) == "Pool(closed)"


def test_a_forgotten_pool_ends_its_workers():
    before = threading.active_count()
    Pool(3)
    gc.collect()
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [0, -1, 1025, 1.5, True, "2"])
def test_impossible_numbers_of_threads_are_refused(threads):
    with pytest.raises(OptionError, match="E0801"):
        Pool(threads)


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container_limits_the_threads(tmp_path, files, cpus):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert _quota(tmp_path) == cpus


EXITS = {
    "idle workers": "pool = Pool(3)",
    "no reference": "Pool(3)",
    "sleeping workers": "pool = Pool(3); import time; time.sleep(0.1)",
    "error": "pool = Pool(3); raise SystemExit(0)",
    "made in a thread": (
        "import threading\nthreading.Thread(target=lambda: keep.append(Pool(3))).start()"
    ),
    "daemon at work": f"""
import ctypes, threading, time
from treadle_runtime.loader import load_text
from treadle_runtime.threads import runtime_symbols
def work():
    code = load_text({COUNTING!r}, ["repeat"], runtime_symbols())
    types = (None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    repeat = ctypes.CFUNCTYPE(*types)(code["repeat"])
    memory = (ctypes.c_int64 * 8)()
    pool = Pool(3)
    repeat(pool.address, ctypes.addressof(memory), 8, 1 << 60)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
""",
}


@pytest.mark.parametrize("program", EXITS.values(), ids=EXITS.keys())
def test_the_interpreter_exits_at_once_and_cleanly(program):
    text = f"from treadle_runtime.threads import Pool\nkeep = []\n{program}\n"
    done = subprocess.run([sys.executable, "-c", text], timeout=60, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_runs_serially():
    with Pool(2) as pool:
        assert len(chunks_of(pool.address, 10, 1)) == 2
        child = os.fork()
        if child == 0:
            whole = len(chunks_of(pool.address, 10, 1)) == 1
            pool.close()
            os._exit(0 if whole else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert len(chunks_of(pool.address, 10, 1)) == 2


def test_threads_that_start_at_once_share_one_compiled_pool():
    text = """
import threading
from treadle_runtime.threads import native_threads
found = []
callers = [threading.Thread(target=lambda: found.append(native_threads())) for _ in range(8)]
for caller in callers:
    caller.start()
for caller in callers:
    caller.join()
assert len(found) == 8 and len({id(each) for each in found}) == 1
"""
    done = subprocess.run([sys.executable, "-c", text], timeout=60, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64", "unheard-of"])
def test_the_text_is_complete_for_each_kind_of_cpu(machine):
    text = threads_ir(machine, futex=machine != "unheard-of")
    assert "$" not in text
    assert ("pause()" in text) == (machine == "x86_64")

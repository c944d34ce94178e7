"""Memory for large arrays: aligned, used again, bounded, zero where that was asked, safe among threads and forks."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest

import pppml_fast as pf
from pppml_fast import _native, memory
from pppml_fast.memory import memory_statistics

MIB = 1 << 20
HUGE_PAGE = 2 * MIB
WORDS = 3 * MIB  # of four bytes: six huge pages
# From Python 3.12 on a fork among threads is warned about.
forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def _an_empty_arena() -> Iterator[None]:
    gc.collect()
    pf.release_memory()
    limit = memory_statistics()["limit"]
    yield
    pf.set_memory_limit(limit)
    pf.release_memory()


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def change(before: dict[str, int]) -> dict[str, int]:
    """What the statistics gained since ``before``."""
    now = memory_statistics()
    return {name: now[name] - before[name] for name in now if now[name] != before[name]}


# --- blocks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [memory.empty, memory.zeros])
@pytest.mark.parametrize("dtype", [np.uint32, np.uint64, np.int64, np.float32, "u1"])
def test_an_array_has_the_type_and_length_that_were_asked_for(make: object, dtype: object) -> None:
    for count in (0, 1, 1000, MIB, WORDS + 5):
        array = make(count, dtype)  # type: ignore[operator]
        assert array.shape == (count,) and array.dtype == np.dtype(dtype)
        assert array.flags.writeable and array.flags.c_contiguous
        array[:] = 7
        assert make is memory.empty or not memory.zeros(count, dtype).any()


def test_large_arrays_stand_at_huge_pages_and_small_ones_elsewhere() -> None:
    before = memory_statistics()
    large = [memory.empty(count, np.uint8) for count in (MIB, HUGE_PAGE, HUGE_PAGE + 1, 50 * MIB)]
    assert [address(array) % HUGE_PAGE for array in large] == [0] * len(large)
    used = 2 * MIB + 2 * MIB + 4 * MIB + 52 * MIB
    assert change(before) == {"used_blocks": 4, "used_bytes": used, "mapped": 4}
    small = memory.zeros(MIB - 1, np.uint8)
    assert small.base is None and change(before)["used_blocks"] == 4


def test_blocks_do_not_overlap() -> None:
    arrays = [memory.empty(WORDS, np.uint32) for _ in range(4)]
    for index, array in enumerate(arrays):
        array[:] = index
    assert [int(array.min()) for array in arrays] == [int(array.max()) for array in arrays] == [0, 1, 2, 3]


@pytest.mark.parametrize("size", [1, MIB, HUGE_PAGE, HUGE_PAGE + 1, 16 * MIB - 1, 16 * MIB + 1, (1 << 30) + 1, 3 << 40])
def test_a_block_holds_what_it_is_for_and_an_eighth_more_at_most(size: int) -> None:
    capacity = _native.arena_capacity(size)
    assert capacity >= size and capacity % HUGE_PAGE == 0
    assert capacity - size < max(HUGE_PAGE, size // 8 + 1)
    assert _native.arena_capacity(capacity) == capacity


@pytest.mark.parametrize("count", [1 << 46, 1 << 61, (1 << 64) - 1])
def test_an_array_beyond_all_memory_is_refused(count: int) -> None:
    before = memory_statistics()
    with pytest.raises(MemoryError):
        _native.empty("u8", count)
    assert change(before) == {}


@pytest.mark.parametrize("dtype", ["O", "U8", "bool", "datetime64[s]"])
def test_only_plain_numbers_live_there(dtype: str) -> None:
    with pytest.raises(ValueError, match="no plain number"):
        _native.empty(dtype, 10)


# --- use again --------------------------------------------------------------------------------------------------


def test_a_block_is_used_again_and_zero_only_where_zeros_were_asked_for() -> None:
    first = memory.empty(WORDS, np.uint32)
    first[:] = 9
    place = address(first)
    del first
    before = memory_statistics()
    assert before["kept_bytes"] == 12 * MIB
    again = memory.empty(WORDS - 100, np.uint32)
    assert address(again) == place and again[0] == 9
    assert change(before)["reused"] == 1 and memory_statistics()["kept_blocks"] == 0
    del again
    zero = memory.zeros(2 * WORDS, np.uint16)
    assert address(zero) == place and not zero.any()


def test_the_block_given_back_last_is_taken_first_and_other_sizes_are_left() -> None:
    arrays = [memory.empty(WORDS, np.uint32) for _ in range(3)]
    places = [address(array) for array in arrays]
    while arrays:
        arrays.pop()
    other = memory.empty(2 * WORDS, np.uint32)
    assert address(other) not in places
    taken = [memory.empty(WORDS, np.uint32) for _ in range(3)]
    assert [address(array) for array in taken] == places


def test_views_keep_a_block_and_arrays_end_in_any_order() -> None:
    before = memory_statistics()["used_blocks"]
    arrays = [memory.empty(WORDS, np.uint32) for _ in range(3)]
    for index in range(3):
        arrays[index][:] = index
    view, raw = arrays[1][10:20].reshape(2, 5), memoryview(arrays[2])[5:6]
    arrays.clear()
    assert memory_statistics()["used_blocks"] == before + 2
    fresh = memory.empty(WORDS, np.uint32)
    fresh[:] = 77
    assert (view == 1).all() and raw[0] == 2
    del view, raw
    assert memory_statistics()["used_blocks"] == before + 1 and (fresh == 77).all()


# --- the limit --------------------------------------------------------------------------------------------------


def test_no_more_is_kept_than_the_limit_and_the_oldest_goes_first() -> None:
    pf.set_memory_limit(30 * MIB)
    first, second, third = (memory.empty(count, np.uint8) for count in (10 * MIB, 12 * MIB, 14 * MIB))
    places = address(second), address(third)
    del first, second, third
    kept = memory_statistics()
    assert (kept["kept_blocks"], kept["kept_bytes"]) == (2, 26 * MIB)
    assert (address(memory.empty(12 * MIB, np.uint8)), address(memory.empty(14 * MIB, np.uint8))) == places
    memory.empty(32 * MIB, np.uint8)  # beyond the limit alone: the others stay
    assert memory_statistics()["kept_bytes"] == 26 * MIB
    pf.set_memory_limit(15 * MIB)
    assert memory_statistics()["kept_bytes"] == 14 * MIB
    pf.set_memory_limit(0)
    memory.empty(10 * MIB, np.uint8)
    assert memory_statistics()["kept_blocks"] == 0


def test_release_gives_back_what_is_kept_and_nothing_in_use() -> None:
    used = memory.empty(WORDS, np.uint32)
    used[:] = 5
    memory.empty(20 * MIB, np.uint8)[:] = 1
    assert pf.release_memory() == 20 * MIB
    assert pf.release_memory() == 0 and memory_statistics()["kept_bytes"] == 0
    assert (used == 5).all()


def test_memory_really_goes_back_to_the_system() -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    memory.empty(64 * MIB, np.uint8)[:] = 1
    full = resident()
    assert pf.release_memory() == 64 * MIB
    assert full - resident() > 60 * MIB


def test_the_first_limit_is_a_quarter_of_the_memory_or_a_gibibyte() -> None:
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory_statistics()["limit"] == pytest.approx(min(1 << 30, physical // 4), abs=1 << 16)


@pytest.mark.parametrize("limit", [-1, 1.5, True, None, 1 << 63])
def test_a_limit_that_is_no_size_is_refused(limit: object) -> None:
    with pytest.raises(pf.InputError, match=r"the memory limit = .* must be a whole number, 0 or more"):
        pf.set_memory_limit(limit)  # type: ignore[arg-type]


# --- threads and forks ------------------------------------------------------------------------------------------


def test_threads_never_share_a_block() -> None:
    before = memory_statistics()
    pf.set_memory_limit(16 * MIB)  # so that blocks come, go and stay
    wrong: list[int] = []

    def work(name: int) -> None:
        for step in range(60):
            arrays = [memory.empty((1 + (name + step + k) % 3) * 2 * MIB, np.uint8) for k in range(3)]
            for array in arrays:
                array[::4096] = name
            wrong.extend(name for array in arrays if (array[::4096] != name).any())
            if step % 20 == name:
                pf.release_memory()

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    now = memory_statistics()
    assert wrong == [] and now["used_bytes"] == before["used_bytes"] and now["kept_bytes"] <= 16 * MIB


@forks
def test_a_fork_has_its_own_memory_and_starts_without_blocks_to_spare() -> None:
    shared = memory.empty(WORDS, np.uint32)
    shared[:] = 1
    kept = memory.empty(WORDS, np.uint32)
    kept[:] = 2
    place = address(kept)
    del kept
    child = os.fork()
    if child == 0:
        inherited = memory_statistics()
        own = memory.empty(WORDS, np.uint32)  # may stand where the parent's kept block does
        fresh = not own[::1024].any()
        own[:] = 3
        shared[:] = 4
        os._exit(0 if fresh and inherited["kept_bytes"] == 0 and inherited["used_blocks"] > 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (shared == 1).all()
    again = memory.empty(WORDS, np.uint32)
    assert address(again) == place and (again == 2).all()


@forks
def test_forks_among_busy_threads_find_the_arena_whole() -> None:
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            memory.empty(2 * MIB, np.uint8)[0] = 1

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            child = os.fork()
            if child == 0:
                ok = all(not memory.zeros(2 * MIB, np.uint8)[::4096].any() for _ in range(3))
                os._exit(0 if ok and pf.release_memory() > 0 else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()


# --- who uses it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", ["public", "secret", "collective"])
def test_large_results_come_from_the_arena_and_stale_contents_never_show(keys: str) -> None:
    params = pf.CkksParams.preset("p31", parties=2, clip=1.0, keys=keys)  # type: ignore[arg-type]
    x = np.random.default_rng(1).normal(0, 0.4, 300_000).astype(np.float32)
    expected = 2 * pf.quantize(params, x)
    for _ in range(2):
        memory.empty(2 * MIB, np.uint8)[:] = 255  # what the next blocks hold before they are written
        held = [memory.empty(2 * MIB, np.uint8) for _ in range(6)]
        for array in held:
            array[:] = 255
        before = memory_statistics()
        del held, array
        if keys == "collective":
            parties = [pf.CollectiveKey.generate(params) for _ in range(2)]
            terms = [key.encrypt(x, context=bytes(32)) for key in parties]
            opener = pf.CollectiveKey.sum(parties)
        else:
            pair = pf.keygen(params)
            terms = [(pair.public or pair.secret).encrypt(x) for _ in range(2)]
            opener = pair.secret  # type: ignore[assignment]
        total = pf.add(terms)
        again = pf.Ciphertext.from_bytes(params, total.to_bytes())
        opened = opener.decrypt(again, integers=True)
        assert np.array_equal(opened, expected)
        for array in (terms[0].first, total.first, again.first, opened, opener.decrypt(again)):
            assert address(array) % HUGE_PAGE == 0
        assert change(before)["reused"] >= 4
        zeros = pf.Ciphertext.zeros(params, 300_000)
        assert not zeros.first.any() and (zeros.second is None or not zeros.second.any())
        del terms, total, again, opened, zeros, array

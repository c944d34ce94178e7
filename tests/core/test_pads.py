"""Prepared encryption: the same ciphertext from pads, and pads that are bounded, used once, zeroised, never forked."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from core_support import CONTEXT, SETS, vector

import pppml_fast as pf
from pppml_fast import _native
from pppml_fast.cipher.pads import PadStore

SEED = bytes(range(32))
OTHER = bytes(32)


def params_of(name: str = "p31", **options: Any) -> pf.CkksParams:
    return pf.CkksParams.preset(name, **{"parties": 3, "clip": 1.0, "keys": "collective", **options})


def fixed_key(params: pf.CkksParams) -> pf.CollectiveKey:
    """A key whose every bit is known, so that two of them encrypt alike."""
    secret = params._scheme.generate_secret(_native.StreamKey.from_bytes(SEED))
    return pf.CollectiveKey(params, secret, _native.StreamKey.from_bytes(OTHER))


def block_bytes(params: pf.CkksParams) -> int:
    return params.ring_dimension * len(params.primes) * int(params._scheme.word_bytes)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The core's, for a while: pads come as slowly on many processors as on one."""
    before = pf.get_num_threads()
    pf.set_num_threads(1)
    yield
    pf.set_num_threads(before)


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 300  # pads are made at the lowest priority: on a busy machine, seldom
    while not condition():
        assert time.monotonic() < end, "the pads did not come"
        time.sleep(0.001)


@pytest.mark.parametrize("prepared", [0, 1, 2, 4, 5, 9])
@pytest.mark.parametrize("name", SETS)
def test_any_number_of_pads_gives_the_same_ciphertext(name: str, prepared: int) -> None:
    params = params_of(name, weights="public", rounding="stochastic")
    for length in (4 * params.block_weights + 333, 5 * params.block_weights, 3, 0):
        x, reference = vector(length), vector(length, 1)
        plain = fixed_key(params).encrypt(x, CONTEXT, 0.25, reference)
        key = fixed_key(params)
        key.prepare(CONTEXT, length, limit_bytes=prepared * block_bytes(params), background=False)
        blocks = params.block_count(length)
        expected = min(prepared, blocks) / blocks if blocks else 1.0
        assert key.prepared_fraction == expected
        assert key.encrypt(x, CONTEXT, 0.25, reference).to_bytes() == plain.to_bytes()
        assert key.prepared_fraction == (expected if blocks else 0.0)


@pytest.mark.parametrize("prepared", [0, 2, 5])
def test_a_turn_in_one_pass_is_encrypt_and_hop(prepared: int) -> None:
    params = params_of()
    x = vector(4 * 2048 + 77)
    first = fixed_key(params).encrypt(vector(x.size, 5), CONTEXT)
    incoming, mine = first.pack(0, first.block_count), fixed_key(params).encrypt(x, CONTEXT)

    def key() -> pf.CollectiveKey:
        fresh = fixed_key(params)
        fresh.prepare(CONTEXT, x.size, limit_bytes=prepared * block_bytes(params), background=False)
        return fresh

    assert key().encrypt_onto(None, x, CONTEXT) == mine.pack(0, mine.block_count)
    expected = mine.hop(incoming, 0, mine.block_count)
    assert key().encrypt_onto(incoming, x, CONTEXT) == expected
    both = bytearray(incoming)
    assert key().encrypt_onto(both, x, CONTEXT, out=both).obj is both
    assert both == expected
    out = np.ones(len(incoming), np.uint8)
    assert key().encrypt_onto(incoming, x, CONTEXT, out=out).obj is out
    assert bytes(out) == expected


def test_a_refused_turn_leaves_zeros_and_no_key_whose_ciphertext_others_may_have_read() -> None:
    params = params_of()
    x = vector(3 * 2048)
    spoilt_x = np.append(x[1:], np.float32(np.nan))
    size = 3 * 2048 * 31 // 8
    spoilt = bytearray(size)
    spoilt[-4:] = b"\xff" * 4
    out, wide = bytearray(b"\x01" * size), bytearray(size + 1)
    for arguments, error, state in (
        ({"incoming": bytes(spoilt), "out": out}, pf.CiphertextError, "used"),
        ({"incoming": bytes(spoilt)}, pf.CiphertextError, "fresh"),
        ({"incoming": spoilt, "out": spoilt}, pf.CiphertextError, "used"),
        ({"incoming": bytes(size - 1)}, pf.CiphertextError, "fresh"),
        ({"incoming": memoryview(out)[: size - 1]}, pf.CiphertextError, "fresh"),
        ({"incoming": memoryview(wide)[1:], "out": memoryview(wide)[:-1]}, pf.InputError, "fresh"),
        ({"incoming": None, "out": bytes(size)}, pf.InputError, "fresh"),
        ({"incoming": None, "out": memoryview(bytearray(2 * size))[::2]}, pf.InputError, "fresh"),
        ({"incoming": None, "weight": 0.5, "out": out}, pf.ParameterError, "fresh"),
        ({"incoming": None, "x": spoilt_x}, pf.InputError, "fresh"),
        ({"incoming": None, "x": spoilt_x, "out": out}, pf.InputError, "used"),
    ):
        key = pf.CollectiveKey.generate(params)
        key.prepare(CONTEXT, x.size, limit_bytes=2 * block_bytes(params), background=False)
        with pytest.raises(error):
            key.encrypt_onto(**{"x": x, "context": CONTEXT, **arguments})
        assert state in repr(key)
        assert not any(out)
    assert not any(spoilt)
    key = pf.CollectiveKey.generate(params)
    key.encrypt_onto(None, x, CONTEXT)
    with pytest.raises(pf.KeyReuseError, match="one message"):
        key.encrypt_onto(None, x, CONTEXT)


def test_pads_come_in_the_background_and_encryption_does_not_wait_for_the_rest(one_thread: None) -> None:
    params = params_of()
    length = 6_000 * 2048
    x, fractions = np.zeros(length, np.float32), list[float]()
    # Whoever is kept from the processor between two lines finds all pads made: it is enough to be in time once.
    while len(fractions) < 50 and not any(0 < fraction < 1 for fraction in fractions):
        key = pf.CollectiveKey.generate(params)
        key.prepare(CONTEXT, length)
        wait_for(lambda key=key: key.prepared_fraction > 0)
        ciphertext = key.encrypt(x, CONTEXT)
        fractions.append(key.prepared_fraction)
        assert not pf.CollectiveKey.sum([key]).decrypt(ciphertext, integers=True).any()
    assert 0 < fractions[-1] < 1, "encryption waits for all pads, or 12 million are made at once here"
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "pppml pads"])


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux alone")
def test_pads_are_made_at_the_lowest_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    real, priorities = _native.PadStore, dict[int, int]()

    class Watched:
        """Notes with which priority which thread fills it."""

        def __init__(self, *arguments: Any) -> None:
            self.store = real(*arguments)

        def fill(self) -> None:
            thread = threading.get_native_id()
            priorities[thread] = os.getpriority(os.PRIO_PROCESS, thread)
            self.store.fill()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

    monkeypatch.setattr(_native, "PadStore", Watched)
    key = pf.CollectiveKey.generate(params_of())
    key.prepare(CONTEXT, 5 * 2048)
    wait_for(lambda: key.prepared_fraction == 1)
    assert list(priorities.values()) == [19] and threading.get_native_id() not in priorities
    assert os.getpriority(os.PRIO_PROCESS, 0) < 19
    key.destroy()


# --- one message, one use ---------------------------------------------------------------------------------------------


def store_of(key: pf.CollectiveKey) -> PadStore:
    assert key._pads is not None
    return key._pads


def words_of(store: PadStore) -> np.ndarray:
    return store._native.words()


def test_used_pads_are_zero_before_the_ciphertext_is_there() -> None:
    params = params_of()
    for prepared in (2, 5):
        key = pf.CollectiveKey.generate(params)
        key.prepare(CONTEXT, 4 * 2048 + 9, limit_bytes=prepared * block_bytes(params), background=False)
        words = words_of(store_of(key))
        assert np.count_nonzero(words) > 0.99 * words.size
        key.encrypt(vector(4 * 2048 + 9), CONTEXT)
        assert key._pads is None and not words.any()


def test_each_use_zeroes_its_pads_and_happens_once() -> None:
    params = params_of()
    key = pf.CollectiveKey.generate(params)
    key.prepare(CONTEXT, 40 * 2048, background=False)
    store, words = store_of(key), words_of(store_of(key))
    scheme, x, out = params._scheme, vector(40 * 2048), np.zeros(20 * 2048, np.uint32)
    with store.use(0, 20) as pads:
        scheme.encrypt_prepared(pads, key._noise, [x], 1.0, out, stop=20, consume=True)
    assert out.any() and not words[: 20 * 2048].any() and words[20 * 2048 :].all()
    for start, stop in ((0, 20), (10, 30), (25, 30), (20, 41)):
        with pytest.raises(pf.KeyReuseError, match="were used or destroyed"), store.use(start, stop):
            pass
    store.close()
    assert not words.any()
    with pytest.raises(pf.KeyReuseError, match="were used or destroyed"), store.use(20, 40):
        pass


def test_pads_that_become_the_ciphertext_are_not_consumed() -> None:
    params = params_of()
    key = fixed_key(params)
    pads = np.zeros(2048, np.uint32)
    params._scheme.make_pads(key._secret, key._noise, SEED, 2048, 0, 1, pads)
    with pytest.raises(_native.RequirementError, match="not consumed"):
        params._scheme.encrypt_prepared(pads, key._noise, [vector(2048)], 1.0, pads, consume=True)


@pytest.mark.parametrize("end", ["destroyed", "collected", "other context", "other length", "prepared anew", "refused"])
def test_pads_that_are_not_used_are_destroyed(end: str) -> None:
    params = params_of()
    key, length = pf.CollectiveKey.generate(params), 9 * 2048
    key.prepare(CONTEXT, length, background=False)
    words = words_of(store_of(key))
    assert words.any()
    x = vector(length)
    if end == "destroyed":
        key.destroy()
    elif end == "collected":
        del key
        gc.collect()
    elif end == "other context":
        total = key.encrypt(x, OTHER)
    elif end == "other length":
        x = x[1:]
        total = key.encrypt(x, CONTEXT)
    elif end == "prepared anew":
        key.prepare(OTHER, length, background=False)
        assert key.prepared_fraction == 1
        total = key.encrypt(x, OTHER)
    else:
        x[7] = np.inf
        with pytest.raises(pf.InputError, match="element 7 "):
            key.encrypt(x, CONTEXT)
        x[7] = 0
        assert key.prepared_fraction == 0
        total = key.encrypt(x, CONTEXT)
    assert not words.any()
    if end not in ("destroyed", "collected"):
        assert np.array_equal(pf.CollectiveKey.sum([key]).decrypt(total, integers=True), pf.quantize(params, x))
        assert key.prepared_fraction == (1 if end == "prepared anew" else 0)


def test_the_same_message_is_prepared_once_and_a_used_key_not_at_all() -> None:
    params = params_of()
    key = pf.CollectiveKey.generate(params)
    key.prepare(CONTEXT, 5000, background=False)
    store = store_of(key)
    key.prepare(CONTEXT, 5000)
    assert store_of(key) is store
    with pytest.raises(pf.InputError, match="0 or more"):
        key.prepare(CONTEXT, 5000, limit_bytes=-1)
    key.encrypt(vector(5000), CONTEXT)
    with pytest.raises(pf.KeyReuseError, match="one message"):
        key.prepare(CONTEXT, 5000)
    key.destroy()
    with pytest.raises(pf.KeyReuseError, match="destroyed"):
        key.prepare(CONTEXT, 5000)


def test_keys_are_destroyed_and_collected_while_their_pads_are_made() -> None:
    params = params_of()
    for end in ("destroy", "collect", "encrypt elsewhere") * 3:
        key = pf.CollectiveKey.generate(params)
        key.prepare(CONTEXT, 20_000 * 2048, limit_bytes=1 << 31)
        if end == "destroy":
            key.destroy()
        elif end == "encrypt elsewhere":
            key.encrypt(vector(100), OTHER)
        del key
        gc.collect()
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "pppml pads"])


def test_threads_that_prepare_encrypt_and_destroy_meet_no_race() -> None:
    params, x = params_of(), vector(300 * 2048)
    expected = pf.quantize(params, x)
    for seed in range(12):
        key, gate = pf.CollectiveKey.generate(params), threading.Barrier(4)
        opener, made, refused = pf.CollectiveKey.sum([key]), list[pf.Ciphertext](), list[int]()

        def work(part: int, key: Any = key, gate: Any = gate, made: Any = made, refused: Any = refused) -> None:
            gate.wait()
            try:
                if part < 2:
                    made.append(key.encrypt(x, CONTEXT))
                elif part == 2 or seed % 2:  # noqa: B023
                    key.prepare(CONTEXT, x.size)
                else:
                    key.destroy()
            except pf.KeyReuseError:
                refused.append(part)

        threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) <= 1 and (made or not seed % 2)
        for ciphertext in made:
            assert np.array_equal(opener.decrypt(ciphertext, integers=True), expected)
        key.destroy()


def test_a_key_that_is_destroyed_while_it_encrypts_stays_destroyed() -> None:
    params = params_of()
    x = vector(4_000_000)
    x[-1] = np.nan
    for _ in range(5):
        key = pf.CollectiveKey.generate(params)

        def refused(key: pf.CollectiveKey = key) -> None:
            with pytest.raises(pf.PppmlError):
                key.encrypt(x, CONTEXT)

        thread = threading.Thread(target=refused)
        thread.start()
        while key._noise is not None:
            pass
        key.destroy()
        thread.join()
        assert key._secret is None
        assert key._noise is None
        with pytest.raises(pf.KeyReuseError, match="destroyed"):
            key.encrypt(vector(9), CONTEXT)


@pytest.mark.parametrize("limit", [-1, 1.5, "a", True, None])
def test_a_limit_of_pads_is_a_number_of_bytes(limit: Any) -> None:
    key = pf.CollectiveKey.generate(params_of())
    with pytest.raises(pf.InputError, match=r"limit_bytes = .* must be a whole number, 0 or more"):
        key.prepare(CONTEXT, 9, limit_bytes=limit)
    key.prepare(CONTEXT, 9, limit_bytes=np.int64(1 << 20), background=False)
    assert key.prepared_fraction == 1


def test_a_store_is_filled_by_one_thread(one_thread: None) -> None:
    params = params_of()
    key, refused = fixed_key(params), False
    for _ in range(50):  # until the second comes before the first has filled all of it
        native = _native.PadStore(params._scheme, key._secret, key._noise, SEED, 10_000 * 2048, 10_000)
        thread = threading.Thread(target=native.fill)
        thread.start()
        wait_for(lambda native=native: native.ready > 0)
        try:
            native.fill()
        except _native.RequirementError as error:
            assert "being filled already" in str(error)
            refused = True
        assert 0 < native.halt() <= native.capacity == 10_000
        native.wipe()
        thread.join()
        assert native.ready == 0
        native.fill()  # a wiped store stays empty
        assert native.ready == 0
        if refused:
            break
    assert refused


# --- forks and the end ------------------------------------------------------------------------------------------------

FORK = """
import os, warnings
import numpy as np
import pppml_fast as pf
warnings.simplefilter("ignore", DeprecationWarning)  # forking beside a thread is the point

params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective")
context, length = bytes(32), 3_000 * 2048
x = np.linspace(-1, 1, length, dtype=np.float32)
full, filling, streamed = (pf.CollectiveKey.generate(params) for _ in range(3))
full.prepare(context, length, background=False)
streamed.prepare(context, length, background=False)
chunks = streamed.encrypt_chunks(x, context, chunk_blocks=10)
header, first = next(chunks), bytes(next(chunks))
words = full._pads._native.words()
filling.prepare(context, length, limit_bytes=1 << 30)
child = os.fork()
if child == 0:
    code = 0
    try:
        code |= 1 if words.any() else 0
        code |= 2 if full.prepared_fraction or filling.prepared_fraction else 0
        for key in (full, filling):
            try:
                key.encrypt(x, context)
                code |= 4
            except pf.PppmlError as error:
                code |= 0 if "fork" in str(error) else 8
            key.destroy()
        try:
            next(chunks)
            code |= 16
        except pf.PppmlError as error:
            pass
        mine = pf.CollectiveKey.generate(params)
        mine.prepare(context, length)
        mine.encrypt(x, context)
    except BaseException:
        code |= 32
    os._exit(code)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, os.waitstatus_to_exitcode(status)
assert words.all() or np.count_nonzero(words) > 0.99 * words.size
expected = pf.quantize(params, x)
for key in (full, filling):
    opened = pf.CollectiveKey.sum([key]).decrypt(key.encrypt(x, context), integers=True)
    assert np.array_equal(opened, expected)
rest = [header, first, *(bytes(chunk) for chunk in chunks)]
opened = np.zeros(length, np.int64)
pf.CollectiveKey.sum([streamed]).decrypt_chunks(rest, opened)
assert np.array_equal(opened, expected)
print("done")
"""

BUSY_FORK = """
import os, sys, threading, warnings
import pppml_fast as pf
warnings.simplefilter("ignore", DeprecationWarning)  # forking beside a thread is the point

params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective")
key, other = (pf.CollectiveKey.generate(params) for _ in range(2))
key.prepare(bytes(32), 10_000, background=False)
held, done = threading.Event(), threading.Event()


def hold() -> None:
    with key._pads._lock.held(), key._claim.held():
        held.set()
        done.wait()


thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    # Nobody here will ever release the locks.
    for use in (
        lambda: key.encrypt([0.5], bytes(32)),
        lambda: key.prepare(bytes(32), 10_000),
        lambda: other.prepare(bytes(32), 10_000),
        lambda: pf.CollectiveKey.sum([other]),
    ):
        try:
            use()
            os._exit(1)
        except pf.KeyReuseError as error:
            if "fork" not in str(error):
                os._exit(2)
    other.destroy()
    sys.exit(0)  # the end of the process wipes pads; the fork has none
_, status = os.waitpid(child, 0)
done.set()
thread.join()
assert os.waitstatus_to_exitcode(status) == 0, os.waitstatus_to_exitcode(status)
key.encrypt([0.5] * 10_000, bytes(32))
print("done")
"""

EXIT = """
import pppml_fast as pf
params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective")
keys = [pf.CollectiveKey.generate(params) for _ in range(3)]
for key in keys:
    key.prepare(bytes(32), 100_000 * 2048, limit_bytes=1 << 32)
print("done")
"""


@pytest.mark.parametrize("script", [FORK, BUSY_FORK, EXIT], ids=["fork", "busy fork", "exit"])
def test_pads_end_with_their_process(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=900, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr

"""Abandoned comes first, spent stays spent: in memory, on disk, and across restarts."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from aggregation_support import NAMES, drop_when, federation, kind_of, sender_of, vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from pppml_fast import DataError, KeyReuseError, ProtocolError, SiteError
from pppml_fast.aggregation import (
    AttemptId,
    AttemptLedger,
    CollectiveParty,
    FileStore,
    MemoryStore,
    PartyMachine,
    State,
    attempts,
    journal,
)
from pppml_fast.aggregation.messages import MessageType
from pppml_fast.aggregation.session import Gate
from pppml_fast.transport import Delivery, Outgoing

FIRST, SECOND = AttemptId(b"s" * 32, 3, 0), AttemptId(b"s" * 32, 3, 1)
OTHER_SESSION = AttemptId(b"t" * 32, 0, 0)
FRAMES = [(1, b"for one"), (2, b"for two")]
UPDATE = [np.arange(5, dtype=np.float32), np.ones(3, np.float32)]


@pytest.fixture(params=["memory", "file"])
def restart(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], AttemptLedger]:
    """A party's ledger, as it finds it each time it starts."""
    memory = MemoryStore()
    opened: list[FileStore] = []

    def start() -> AttemptLedger:
        if request.param == "memory":
            return AttemptLedger(memory)
        for store in opened:
            store.close()
        opened.append(FileStore(tmp_path / "journal"))
        return AttemptLedger(opened[-1])

    return start


def test_context_names_session_round_and_attempt() -> None:
    contexts = {FIRST.context, SECOND.context, OTHER_SESSION.context, AttemptId(b"s" * 32, 4, 0).context}
    assert len(contexts) == 4
    assert all(len(context) == 32 for context in contexts)


def test_update_identity(restart: Callable[[], AttemptLedger]) -> None:
    ledger = restart()
    identity = ledger.update_id(UPDATE)
    assert identity == restart().update_id([np.concatenate(UPDATE)])
    assert identity == ledger.update_id([np.concatenate(UPDATE).astype(np.float64)])
    assert ledger.update_id([np.zeros(2)]) == ledger.update_id([np.array([0.0, -0.0])])
    assert ledger.update_id([np.zeros(2)]) == ledger.update_id([np.array([0.0, -1e-60])])
    changed = np.concatenate(UPDATE)
    changed[7] = np.nextafter(changed[7], 2)
    assert identity != ledger.update_id([changed])
    assert identity != AttemptLedger(MemoryStore()).update_id(UPDATE), "the hash must be keyed"


def test_update_identity_knows_no_parts(restart: Callable[[], AttemptLedger]) -> None:
    ledger, values = restart(), np.random.default_rng(1).normal(size=200_000).astype(np.float32)
    identity = ledger.update_id([values])
    for cuts in ([1], [65_536], [65_535, 65_537], [5, 5, 131_072, 199_999]):
        assert ledger.update_id(np.split(values, cuts)) == identity
    for other in (values[:-1], values[1:], np.append(values, 0), np.roll(values, 65_536)):
        assert ledger.update_id([other]) != identity


def test_released_update_is_spent_for_good(restart: Callable[[], AttemptLedger]) -> None:
    ledger = restart()
    update = ledger.update_id(UPDATE)
    ledger.begin(FIRST, update)
    ledger.prepare(FIRST, update, FRAMES)
    assert ledger.release(FIRST) == FRAMES
    with pytest.raises(ProtocolError, match=r"already released"):
        ledger.abandon(FIRST)
    for compact in (False, True):
        if compact:
            ledger.finish(FIRST)
            ledger.compact()
        ledger = restart()
        assert ledger.is_released(FIRST)
        for attempt in (SECOND, OTHER_SESSION):
            with pytest.raises(KeyReuseError, match=r"spent"):
                ledger.begin(attempt, update)
        with pytest.raises(ProtocolError, match=r"already released"):
            ledger.abandon(FIRST)


def test_a_closed_attempt_that_opens_without_this_party_is_spent_when_abandoned(
    restart: Callable[[], AttemptLedger],
) -> None:
    """Its signature may be all the others lack: the same update over another live set could be told apart."""
    ledger = restart()
    update = ledger.update_id(UPDATE)
    ledger.begin(FIRST, update)
    ledger.prepare(FIRST, update, FRAMES, opens_without=True)
    ledger = restart()
    ledger.abandon(FIRST)
    for compact in (False, True):
        if compact:
            ledger.compact()
            ledger = restart()
        assert ledger.is_spent(update)
        assert not ledger.is_released(FIRST)
        with pytest.raises(ProtocolError, match=r"never released"):
            ledger.release(FIRST)
        for attempt in (SECOND, OTHER_SESSION):
            with pytest.raises(KeyReuseError, match=r"spent: .* discard the update and train anew"):
                ledger.begin(attempt, update)
        ledger.abandon(FIRST)


@pytest.mark.parametrize("opens_without", [False, True])
def test_an_attempt_abandoned_before_it_was_closed_frees_the_update(opens_without: bool) -> None:
    ledger = AttemptLedger(MemoryStore())
    update = ledger.update_id(UPDATE)
    ledger.begin(FIRST, update)
    ledger.abandon(FIRST)
    assert not ledger.is_spent(update)
    ledger.begin(SECOND, update)
    ledger.prepare(SECOND, update, FRAMES, opens_without=opens_without)
    ledger.compact()
    ledger.abandon(SECOND)
    assert ledger.is_spent(update) is opens_without


def test_abandoned_attempt_never_releases(restart: Callable[[], AttemptLedger]) -> None:
    ledger = restart()
    update = ledger.update_id(UPDATE)
    ledger.begin(FIRST, update)
    ledger.prepare(FIRST, update, FRAMES, opens_without=False)
    ledger.abandon(FIRST)
    for same in (ledger, restart()):
        assert same.pending() == ()
        with pytest.raises(ProtocolError, match=r"abandoned; its share is never released"):
            same.release(FIRST)
        with pytest.raises(ProtocolError, match=r"abandoned"):
            same.begin(FIRST, update)
        with pytest.raises(ProtocolError, match=r"already closed"):
            same.prepare(FIRST, update, FRAMES, opens_without=False)
        same.begin(SECOND, update)


def test_update_moves_to_another_attempt_only_after_the_first_is_abandoned(
    restart: Callable[[], AttemptLedger],
) -> None:
    ledger = restart()
    update = ledger.update_id(UPDATE)
    ledger.begin(FIRST, update)
    with pytest.raises(KeyReuseError, match=r"must be abandoned first"):
        ledger.begin(SECOND, update)
    with pytest.raises(KeyReuseError, match=r"already holds another update"):
        ledger.begin(FIRST, ledger.update_id([np.ones(9)]))
    ledger.prepare(FIRST, update, FRAMES, opens_without=False)
    with pytest.raises(KeyReuseError, match=r"must be abandoned first"):
        ledger.begin(SECOND, update)
    ledger.abandon(FIRST)
    ledger.begin(SECOND, update)


def test_crash_after_the_release_leaves_exactly_the_stored_bytes(restart: Callable[[], AttemptLedger]) -> None:
    ledger = restart()
    update = ledger.update_id(UPDATE)
    ledger.begin(FIRST, update)
    ledger.prepare(FIRST, update, FRAMES)
    assert ledger.pending() == (), "nothing may be sent before every statement agreed"
    ledger.release(FIRST)
    for _ in range(2):
        ledger = restart()
        assert ledger.pending() == (FIRST,)
        assert ledger.release(FIRST) == FRAMES
        with pytest.raises(KeyReuseError, match=r"spent"):
            ledger.begin(SECOND, update)
    ledger.finish(FIRST)
    assert ledger.pending() == ()


@pytest.mark.parametrize("opens_without", [False, True])
def test_crash_between_closing_and_release_abandons_the_attempt(
    restart: Callable[[], AttemptLedger], opens_without: bool
) -> None:
    """Nothing proves after a restart that all statements agreed, so the stored share never leaves."""
    ledger = restart()
    update = ledger.update_id(UPDATE)
    ledger.begin(FIRST, update)
    ledger.prepare(FIRST, update, FRAMES, opens_without=opens_without)
    for _ in range(2):
        ledger = restart()
        assert ledger.pending() == ()
        assert ledger.is_spent(update) is opens_without
        with pytest.raises(ProtocolError, match=r"abandoned; its share is never released"):
            ledger.release(FIRST)
    if opens_without:
        with pytest.raises(KeyReuseError, match=r"discard the update and train anew"):
            ledger.begin(SECOND, update)
    else:
        ledger.begin(SECOND, update)


def test_nothing_is_released_unprepared(restart: Callable[[], AttemptLedger]) -> None:
    ledger = restart()
    with pytest.raises(ProtocolError, match=r"there is no share to release"):
        ledger.release(FIRST)
    with pytest.raises(ProtocolError, match=r"does not hold this update"):
        ledger.prepare(FIRST, b"u" * 32, FRAMES)


def test_compaction_keeps_what_matters(restart: Callable[[], AttemptLedger]) -> None:
    ledger = restart()
    spent, moved = ledger.update_id(UPDATE), ledger.update_id([np.ones(4)])
    ledger.begin(FIRST, spent)
    ledger.prepare(FIRST, spent, FRAMES)
    ledger.release(FIRST)
    ledger.begin(SECOND, moved)
    ledger.abandon(SECOND)
    ledger.begin(OTHER_SESSION, moved)
    ledger.prepare(OTHER_SESSION, moved, FRAMES[:1])
    ledger.compact()
    assert ledger.release(OTHER_SESSION) == FRAMES[:1]
    ledger = restart()
    assert set(ledger.pending()) == {FIRST, OTHER_SESSION}
    assert ledger.release(OTHER_SESSION) == FRAMES[:1]
    ledger.compact()
    ledger = restart()
    assert set(ledger.pending()) == {FIRST, OTHER_SESSION}
    with pytest.raises(ProtocolError, match=r"never released"):
        ledger.release(SECOND)
    with pytest.raises(KeyReuseError, match=r"spent"):
        ledger.begin(AttemptId(b"u" * 32, 0, 0), spent)


# --- the file -----------------------------------------------------------------------------------------------------


def filled(path: Path, *records: bytes) -> FileStore:
    """A journal with these records, closed."""
    store = FileStore(path)
    for record in records:
        store.append(record)
    store.close()
    return store


def read_back(path: Path) -> list[bytes]:
    """The records a later process finds."""
    store = FileStore(path)
    store.close()
    return list(store._records)


def test_every_record_is_synced_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "journal"
    store = FileStore(path)
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(journal.os, "fsync", lambda fd: (synced.append(path.stat().st_size), fsync(fd))[1])
    store.append(b"record")
    assert synced == [path.stat().st_size], "fsync ran after the last byte was written"
    assert path.stat().st_mode & 0o077 == 0
    store.close()
    again = FileStore(path)
    assert again.records() == [b"record"]
    assert again.key == store.key


@given(cut=st.integers(1, 17))
@settings(max_examples=17, deadline=None)
def test_a_torn_last_record_is_dropped(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "journal"
    filled(path, b"first", b"torn!")
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_back(path) == [b"first"]
    filled(path, b"third")
    assert read_back(path) == [b"first", b"third"]


@pytest.mark.parametrize("record", [0, 1])
@pytest.mark.parametrize("byte", range(17))
def test_any_altered_byte_of_a_record_is_damage(tmp_path: Path, record: int, byte: int) -> None:
    """Also in the last record, and in the size of one: a larger size must not pass for a torn end."""
    path = tmp_path / "journal"
    filled(path, b"first", b"final")
    at = 44 + 17 * record
    data = bytearray(path.read_bytes())
    data[at + byte] ^= 0x10
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=rf"damaged at byte {at}"):
        FileStore(path)
    assert path.read_bytes() == bytes(data), "a damaged journal is left as it was found"


def test_damage_is_an_error_not_an_empty_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    filled(path, b"first")
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"damaged before byte 44"):
        FileStore(path)
    path.write_bytes(b"something else")
    with pytest.raises(DataError, match=r"is not a journal"):
        FileStore(path)
    store = MemoryStore()
    store.append(b"nonsense")
    with pytest.raises(DataError, match=r"cannot be read"):
        AttemptLedger(store)


def test_a_failed_append_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    store = FileStore(path)
    store.append(b"first")
    whole = path.read_bytes()
    fsync, failures = os.fsync, [OSError("no space left")]

    def failing(descriptor: int) -> None:
        if failures:
            raise failures.pop()
        fsync(descriptor)

    monkeypatch.setattr(journal.os, "fsync", failing)
    with pytest.raises(OSError, match=r"no space left"):
        store.append(b"never there")
    assert path.read_bytes() == whole
    assert store.records() == [b"first"]
    store.append(b"second")
    store.close()
    assert read_back(path) == [b"first", b"second"]


def test_a_journal_that_cannot_take_a_write_back_is_unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    store = FileStore(path)
    store.append(b"first")

    def failing(descriptor: int) -> None:
        raise OSError("disk gone")

    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "fsync", failing)
        with pytest.raises(OSError, match=r"disk gone"):
            store.append(b"lost")
    for call in (lambda: store.append(b"x"), store.records, lambda: store.replace([])):
        with pytest.raises(SiteError, match=r"could not be taken back .*; open it anew"):
            call()
    store.close()
    assert read_back(path)[0] == b"first"


def test_a_failed_replacement_keeps_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    store = FileStore(path)
    store.append(b"first")

    def failing(descriptor: int) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "fsync", failing)
        with pytest.raises(OSError, match=r"no space left"):
            store.replace([b"other"])
    store.append(b"second")
    store.close()
    assert read_back(path) == [b"first", b"second"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["journal", "journal.lock"]


def test_one_journal_has_one_user(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    store = FileStore(path)
    store.replace([b"rewritten"])
    with pytest.raises(ProtocolError, match=r"in use by another process"):
        FileStore(path)
    script = "import sys; from pppml_fast.aggregation import FileStore; FileStore(sys.argv[1])"
    other = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert other.returncode != 0
    assert "in use by another process" in other.stderr
    store.close()
    with pytest.raises(SiteError, match=r"it was closed"):
        store.append(b"late")
    assert read_back(path) == [b"rewritten"]


# --- in a federation ------------------------------------------------------------------------------------------------


@contextmanager
def journals(folder: Path) -> Iterator[dict[str, FileStore]]:
    """The parties' journals, for the life of one process."""
    stores = {name: FileStore(folder / name) for name in NAMES[:3]}
    try:
        yield stores
    finally:
        for store in stores.values():
            store.close()


def test_spent_survives_a_restart_of_the_whole_federation(tmp_path: Path) -> None:
    updates = vectors()
    with journals(tmp_path) as stores, federation(stores=stores) as fed:
        fed.aggregate(updates, round=0)
    with journals(tmp_path) as stores, federation(stores=stores) as fed:
        with pytest.raises(KeyReuseError, match=r"spent"):
            fed.aggregate(updates, round=0)
        fresh = {name: vector + np.float32(0.01) for name, vector in updates.items()}
        fed.aggregate(fresh, round=1)


def test_abandoned_update_may_be_summed_in_a_later_session(tmp_path: Path) -> None:
    updates = vectors(3)

    with journals(tmp_path) as stores, federation(stores=stores) as fed:
        drop_when(fed, "south", lambda d: kind_of(d.data) is MessageType.STATEMENT and sender_of(d.data) == "south")
        with pytest.raises(ProtocolError, match=r"lost before it signed"):
            fed.aggregate(updates, round=0)
        assert [fed.members[name].state for name in fed.parties] == [State.ABANDONED] * 2
    with journals(tmp_path) as stores, federation(stores=stores) as fed:
        fed.aggregate(updates, round=0)


def test_a_signed_update_is_not_retried_where_the_others_can_open_without_it() -> None:
    """One of five is lost before it signs; four shares are enough. Who signed is spent, in every later round."""
    updates = vectors(5)
    with federation(5) as fed:
        drop_when(fed, "centre", lambda d: kind_of(d.data) is MessageType.STATEMENT and sender_of(d.data) == "centre")
        with pytest.raises(ProtocolError, match=r"update is spent, discard it and train anew"):
            fed.aggregate(updates, round=0)
        left = [fed.members[name] for name in fed.parties]
        assert [machine.state for machine in left] == [State.ABANDONED] * 4
        signed = [machine._mine is not None for machine in left if isinstance(machine, CollectiveParty)]
        assert [machine.update_spent for machine in left] == signed
        assert any(signed)
        fed.network.tamper = None
        with pytest.raises(KeyReuseError, match=r"spent"):
            fed.aggregate(updates, round=1)
        fresh = {name: vector + np.float32(0.01) for name, vector in updates.items()}
        assert fed.aggregate(fresh, round=2).members == NAMES[:4]


def test_after_a_crash_the_stored_bytes_finish_the_others(tmp_path: Path) -> None:
    """South releases its share, crashes before it leaves, restarts with only its journal, and sends those bytes."""
    updates = vectors(3)
    store = FileStore(tmp_path / "south")
    with federation(stores={"south": store}) as fed:
        drop_when(fed, "south", lambda d: kind_of(d.data) is MessageType.SHARE and sender_of(d.data) == "south")
        with pytest.raises(ProtocolError, match=r"the update is spent"):
            fed.aggregate(updates, round=0)
        fed.network.tamper = None
        fed.network.restore("south")
        store.close()
        ledger = AttemptLedger(FileStore(tmp_path / "south"))
        (attempt,) = ledger.pending()
        frames = ledger.release(attempt)
        fed.network.post("south", [Outgoing(NAMES[index], data) for index, data in frames])
        fed.network.run()
        for name in ("north", "east"):
            assert fed.members[name].state is State.FINISHED
        north, east = fed.members["north"].outcome, fed.members["east"].outcome
        assert north is not None
        assert east is not None
        assert np.array_equal(north.integers, east.integers)
        with pytest.raises(KeyReuseError, match=r"spent"):
            ledger.begin(SECOND, ledger.update_id([updates["south"]]))


def test_the_journal_is_written_before_the_statement_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    with federation() as fed:
        for name in NAMES[:3]:
            store = fed.members[name]._ledger._store
            append = store.append

            def log(record: bytes, name: str = name, append: Callable[[bytes], None] = append) -> None:
                events.append(f"{name} writes {record[0]}")
                append(record)

            monkeypatch.setattr(store, "append", log)
        sign, route = Gate.sign, PartyMachine._routed

        def signing(gate: Gate, receiver: int, kind: MessageType, body: bytes) -> bytes:
            if kind is MessageType.STATEMENT:
                events.append(f"{gate._session.identity.name} signs")
            return sign(gate, receiver, kind, body)

        def sending(party: PartyMachine, receiver: int, kind: MessageType, data: bytes) -> Outgoing:
            if kind is MessageType.SHARE:
                events.append(f"{party.name} releases")
            return route(party, receiver, kind, data)

        monkeypatch.setattr(Gate, "sign", signing)
        monkeypatch.setattr(PartyMachine, "_routed", sending)
        fed.aggregate(vectors(), round=0)
    for name in NAMES[:3]:
        own = [event.removeprefix(f"{name} ") for event in events if event.startswith(name)]
        assert list(dict.fromkeys(own)) == ["writes 1", "signs", "writes 6", "writes 2", "releases", "writes 5"]


# --- what a restart must still know ------------------------------------------------------------------------------


def _released(store: MemoryStore, round_: int = 3) -> tuple[AttemptLedger, AttemptId]:
    ledger, attempt = AttemptLedger(store), AttemptId(bytes([round_]) * 32, round_, 0)
    update = ledger.update_id([np.full(8, round_, np.float32)])
    ledger.begin(attempt, update)
    ledger.prepare(attempt, update, [(1, b"to east"), (2, b"to south")])
    ledger.release(attempt, ["east", "south"])
    return ledger, attempt


def test_a_sum_that_is_open_may_still_be_needed_by_others_after_a_restart() -> None:
    store = MemoryStore()
    ledger, attempt = _released(store)
    ledger.finish(attempt)
    assert ledger.pending() == ()
    again = AttemptLedger(store)
    assert again.pending() == (attempt,)
    assert again.unsettled() == {attempt: [(1, b"to east"), (2, b"to south")]}
    again.settle(attempt.round)
    assert AttemptLedger(store).pending() == (attempt,), "rounds before this one alone are settled"
    again.settle(attempt.round + 1)
    for kept in (again, AttemptLedger(store)):
        assert kept.pending() == ()
        assert kept.knows(attempt)
        assert kept.is_released(attempt)


def test_compaction_keeps_the_messages_of_an_open_sum_until_they_are_settled() -> None:
    store = MemoryStore()
    ledger, attempt = _released(store)
    ledger.finish(attempt)
    ledger.compact()
    again = AttemptLedger(store)
    assert again.unsettled() == {attempt: [(1, b"to east"), (2, b"to south")]}
    again.settle_attempt(AttemptId(bytes([3]) * 32, 3, 1))
    assert set(again.unsettled()) == {attempt}, "of another attempt of that round"
    again.settle_attempt(attempt)
    again.compact()
    again = AttemptLedger(store)
    assert not again.unsettled() and again.knows(attempt)
    assert again.is_spent(again.update_id([np.full(8, 3, np.float32)]))


def test_a_journal_is_rewritten_without_what_was_settled_unless_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "_SETTLED_LIMIT", 10)
    store = FileStore(tmp_path / "journal")
    ledger, attempt = _released(store)
    monkeypatch.setattr(store, "_write_aside", _no_room)
    ledger.settle(attempt.round + 1)
    assert len(store.records()) == 4, "prepared, witnessed, released, settled"
    monkeypatch.undo()
    monkeypatch.setattr(attempts, "_SETTLED_LIMIT", 10)
    store.close()
    store = FileStore(tmp_path / "journal")
    ledger = AttemptLedger(store)
    assert not ledger.unsettled()
    update = ledger.update_id([np.zeros(8, np.float32)])
    later = AttemptId(bytes(32), 4, 0)
    ledger.begin(later, update)
    ledger.prepare(later, update, [(1, b"to east again")])
    ledger.release(later)
    ledger.settle(5)
    assert len(store.records()) == 4, "two spent updates, two witnessed signatures"
    store.close()
    again = AttemptLedger(FileStore(tmp_path / "journal"))
    assert again.is_released(attempt) and again.is_released(later) and again.is_spent(update)
    assert again.witnessed == {"east": (attempt,), "south": (attempt,)}


def _no_room(key: bytes, records: list[bytes]) -> None:
    raise OSError(errno.ENOSPC, "no space left on device")


def _moved_and_not_synced(store: FileStore) -> None:
    os.replace(store._aside, store._path)
    raise OSError(errno.EMFILE, "too many open files")


def test_a_rewritten_journal_of_which_no_version_is_certain_ends_the_site_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path / "journal")
    ledger, attempt = _released(store)
    with monkeypatch.context() as patch:
        patch.setattr(attempts, "_SETTLED_LIMIT", 10)
        patch.setattr(store, "_move_in_place", lambda: _moved_and_not_synced(store))
        with pytest.raises(
            SiteError, match=r"which version of the file is in place .*too many open files.*; open it anew"
        ):
            ledger.settle(attempt.round + 1)
    store.close()
    again = AttemptLedger(FileStore(tmp_path / "journal"))
    assert not again.unsettled() and again.is_released(attempt)


def test_a_party_whose_journal_became_unusable_ends_and_refuses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path / "south")
    with federation(stores={"south": store}) as fed:
        monkeypatch.setattr(store, "_move_in_place", lambda: _moved_and_not_synced(store))
        with pytest.raises(OSError, match="too many open files"):
            fed.members["south"]._ledger.compact()
        with pytest.raises(SiteError, match=r"which version of the file is in place"):
            fed.aggregate(vectors(), round=0)
        assert not any(machine.refusals or machine.refused_by for machine in fed.members.values())


@pytest.mark.parametrize("topology", ["ring", "star"])
def test_the_journals_of_a_federation_do_not_grow_with_its_rounds(
    topology: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds, share = 12, 4000
    monkeypatch.setattr(attempts, "_SETTLED_LIMIT", 3 * share)
    stores = {name: MemoryStore() for name in NAMES[:3]}
    updates = vectors()
    largest = 0  # bytes of a journal after a sum
    with federation(topology=topology, stores=stores) as fed:
        for number in range(2 * rounds):
            if number % 2:
                fed.sum({name: [number / 32, 0.5] for name in NAMES[:3]})
            else:
                fed.aggregate({name: np.roll(vector, number) for name, vector in updates.items()}, round=number)
            assert not any(machine._ledger.unsettled() for machine in fed.members.values())
            largest = max(largest, *(sum(map(len, store.records())) for store in stores.values()))
    # Each sum writes two messages of more than `share` bytes; every second one is beyond the limit.
    assert 2 * share < largest < 4 * share < rounds * 4 * share
    for name, store in stores.items():
        ledger = AttemptLedger(store)
        assert not ledger.unsettled()
        assert all(
            ledger.is_spent(ledger.update_id([np.roll(updates[name], number)])) for number in range(0, 2 * rounds, 2)
        )


def test_a_federation_keeps_shares_as_long_as_a_member_waits_for_them() -> None:
    held: list[Delivery] = []

    def withhold(delivery: Delivery) -> list[bytes]:
        to_south = kind_of(delivery.data) is MessageType.SHARE and delivery.hop == "south"
        held.extend([delivery] if to_south else [])
        return [] if to_south else [delivery.data]

    with federation() as fed:
        fed.network.tamper = withhold
        with pytest.raises(ProtocolError, match="did not finish"):
            fed.aggregate(vectors(), round=0)
        assert [fed.members[name].state for name in NAMES[:3]] == [State.FINISHED, State.FINISHED, State.OPENING]
        waited_for = fed.members["south"].awaited
        assert waited_for is not None
        kept = {name: fed.members[name]._ledger.unsettled() for name in NAMES[:3]}
        assert all(set(found) == {waited_for} for found in kept.values())
        again = [
            data for name in ("north", "east") for index, data in kept[name][waited_for] if NAMES[index] == "south"
        ]
        assert again == [delivery.data for delivery in held]
        fed.network.tamper = None
        fed.aggregate(vectors(seed=1), round=1)
        assert not any(machine._ledger.unsettled() for machine in fed.members.values()), "south gave the first one up"


@pytest.mark.parametrize("compacted", [False, True])
def test_who_signed_and_what_must_be_drawn_anew_survive(compacted: bool) -> None:
    store = MemoryStore()
    ledger, attempt = _released(store)
    ledger.redraw(5)
    ledger.redraw(2)
    later = AttemptId(bytes(32), 1, 2)
    ledger.witness(later, ["east"])
    if compacted:
        ledger.settle(9)
        ledger.compact()
    again = AttemptLedger(store)
    assert again.witnessed == {"east": (later, attempt), "south": (attempt,)}, (
        "of a later session, and of a later round"
    )
    assert [again.needs_fresh_draws(round_) for round_ in (0, 5, 6)] == [True, True, False]
    assert again.knows(attempt)
    assert not again.knows(AttemptId(bytes(32), 3, 0))

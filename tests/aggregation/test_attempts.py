"""Abandoned comes first, spent stays spent: in memory, on disk, and across restarts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from aggregation_support import NAMES, drop_when, federation, kind_of, sender_of, vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from pppml_fast import DataError, KeyReuseError, ProtocolError
from pppml_fast.aggregation import AttemptId, AttemptLedger, FileStore, MemoryStore, PartyMachine, State, Store, journal
from pppml_fast.aggregation.messages import MessageType
from pppml_fast.aggregation.session import Gate
from pppml_fast.transport import Outgoing

FIRST, SECOND = AttemptId(b"s" * 32, 3, 0), AttemptId(b"s" * 32, 3, 1)
OTHER_SESSION = AttemptId(b"t" * 32, 0, 0)
FRAMES = [(1, b"for one"), (2, b"for two")]
UPDATE = [np.arange(5, dtype=np.float32), np.ones(3, np.float32)]


@pytest.fixture(params=["memory", "file"])
def restart(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], AttemptLedger]:
    """A party's ledger, as it finds it each time it starts."""
    memory = MemoryStore()

    def start() -> AttemptLedger:
        store: Store = memory if request.param == "memory" else FileStore(tmp_path / "journal")
        return AttemptLedger(store)

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
    changed = np.concatenate(UPDATE)
    changed[7] = np.nextafter(changed[7], 2)
    assert identity != ledger.update_id([changed])
    assert identity != AttemptLedger(MemoryStore()).update_id(UPDATE), "the hash must be keyed"


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


def test_abandoned_attempt_never_releases(restart: Callable[[], AttemptLedger]) -> None:
    ledger = restart()
    update = ledger.update_id(UPDATE)
    ledger.begin(FIRST, update)
    ledger.prepare(FIRST, update, FRAMES)
    ledger.abandon(FIRST)
    for same in (ledger, restart()):
        assert same.pending() == ()
        with pytest.raises(ProtocolError, match=r"abandoned; its share is never released"):
            same.release(FIRST)
        with pytest.raises(ProtocolError, match=r"abandoned"):
            same.begin(FIRST, update)
        with pytest.raises(ProtocolError, match=r"already closed"):
            same.prepare(FIRST, update, FRAMES)
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
    ledger.prepare(FIRST, update, FRAMES)
    ledger = restart()
    with pytest.raises(KeyReuseError, match=r"must be abandoned first"):
        ledger.begin(SECOND, update)
    ledger.abandon(FIRST)
    ledger.begin(SECOND, update)


def test_crash_before_the_release_leaves_exactly_the_stored_bytes(restart: Callable[[], AttemptLedger]) -> None:
    ledger = restart()
    update = ledger.update_id(UPDATE)
    ledger.begin(FIRST, update)
    ledger.prepare(FIRST, update, FRAMES)
    ledger = restart()
    assert ledger.pending() == (FIRST,)
    assert ledger.release(FIRST) == FRAMES
    assert restart().release(FIRST) == FRAMES
    with pytest.raises(KeyReuseError, match=r"spent"):
        restart().begin(SECOND, update)


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
    ledger = restart()
    assert set(ledger.pending()) == {FIRST, OTHER_SESSION}
    assert ledger.release(OTHER_SESSION) == FRAMES[:1]
    with pytest.raises(ProtocolError, match=r"never released"):
        ledger.release(SECOND)
    with pytest.raises(KeyReuseError, match=r"spent"):
        ledger.begin(AttemptId(b"u" * 32, 0, 0), spent)


# --- the file -----------------------------------------------------------------------------------------------------


def test_every_record_is_synced_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "journal"
    store = FileStore(path)
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(journal.os, "fsync", lambda fd: (synced.append(path.stat().st_size), fsync(fd))[1])
    store.append(b"record")
    assert synced == [path.stat().st_size], "fsync ran after the last byte was written"
    assert path.stat().st_mode & 0o077 == 0
    assert FileStore(path).records() == [b"record"]
    assert FileStore(path).key == store.key


@given(cut=st.integers(1, 13))
@settings(max_examples=13, deadline=None)
def test_a_torn_last_record_is_dropped(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "journal"
    store = FileStore(path)
    store.append(b"first")
    store.append(b"torn!")
    path.write_bytes(path.read_bytes()[:-cut])
    store = FileStore(path)
    assert store.records() == [b"first"]
    store.append(b"third")
    assert FileStore(path).records() == [b"first", b"third"]


def test_damage_is_an_error_not_an_empty_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    store = FileStore(path)
    for record in (b"first", b"second"):
        store.append(record)
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"damaged at byte 40"):
        FileStore(path)
    path.write_bytes(b"something else")
    with pytest.raises(DataError, match=r"is not a journal"):
        FileStore(path)
    store = MemoryStore()
    store.append(b"nonsense")
    with pytest.raises(DataError, match=r"cannot be read"):
        AttemptLedger(store)


# --- in a federation ------------------------------------------------------------------------------------------------


def test_spent_survives_a_restart_of_the_whole_federation(tmp_path: Path) -> None:
    def stores() -> dict[str, FileStore]:
        return {name: FileStore(tmp_path / name) for name in NAMES[:3]}

    updates = vectors()
    with federation(stores=stores()) as fed:
        fed.aggregate(updates, round=0)
    with federation(stores=stores()) as fed:
        with pytest.raises(KeyReuseError, match=r"spent"):
            fed.aggregate(updates, round=0)
        fresh = {name: vector + np.float32(0.01) for name, vector in updates.items()}
        fed.aggregate(fresh, round=1)


def test_abandoned_update_may_be_summed_in_a_later_session(tmp_path: Path) -> None:
    updates = vectors(3)

    def stores() -> dict[str, FileStore]:
        return {name: FileStore(tmp_path / name) for name in NAMES[:3]}

    with federation(stores=stores()) as fed:
        drop_when(fed, "south", lambda d: kind_of(d.data) is MessageType.STATEMENT and sender_of(d.data) == "south")
        with pytest.raises(ProtocolError, match=r"lost before it signed"):
            fed.aggregate(updates, round=0)
        assert [fed.members[name].state for name in fed.parties] == [State.ABANDONED] * 2
    with federation(stores=stores()) as fed, pytest.raises(KeyReuseError, match=r"must be abandoned first"):
        fed.aggregate(updates, round=0)
    ledger = AttemptLedger(FileStore(tmp_path / "south"))
    for attempt in ledger.pending():
        ledger.abandon(attempt)
    with federation(stores=stores()) as fed:
        fed.aggregate(updates, round=0)


def test_after_a_crash_the_stored_bytes_finish_the_others(tmp_path: Path) -> None:
    """South signs, crashes before its share leaves, restarts with nothing but its journal, and sends those bytes."""
    updates = vectors(3)
    store = FileStore(tmp_path / "south")
    with federation(stores={"south": store}) as fed:
        drop_when(fed, "south", lambda d: kind_of(d.data) is MessageType.SHARE and sender_of(d.data) == "south")
        with pytest.raises(ProtocolError, match=r"the update is spent"):
            fed.aggregate(updates, round=0)
        fed.network.tamper = None
        fed.network.restore("south")
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
        assert list(dict.fromkeys(own)) == ["writes 1", "signs", "writes 2", "releases"]

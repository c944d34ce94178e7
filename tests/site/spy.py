"""What one node of a test sees and knows: messages on its links, what its gates opened, its pairwise keys."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pppml_fast.aggregation.pairwise import Channel
from pppml_fast.aggregation.session import Gate, Message, Session
from pppml_fast.transport.base import LinkEvents, Links

__all__ = ["Recording", "Seen", "Spy"]

Keys = tuple[bytes, bytes, bytes]


class Recording:
    """`Links` that keep every message, in and out, as (peer, bytes)."""

    def __init__(self, links: Links) -> None:
        self.links = links
        self.received: list[tuple[str, bytes]] = []
        self.sent: list[tuple[str, bytes]] = []
        self.keep = True

    def start(self, events: LinkEvents) -> None:
        outer = self

        class Ears:
            def on_message(self, peer: str, data: bytes) -> None:
                if outer.keep:
                    outer.received.append((peer, data))
                events.on_message(peer, data)

            def __getattr__(self, name: str) -> Any:
                return getattr(events, name)

        self.links.start(Ears())  # type: ignore[arg-type]

    def send(self, peer: str, data: bytes) -> None:
        if self.keep:
            self.sent.append((peer, data))
        self.links.send(peer, data)

    def room(self, peer: str) -> bool:
        return self.links.room(peer)

    def stop(self) -> None:
        self.links.stop()

    @property
    def carried(self) -> list[bytes]:
        """All messages, once each."""
        return list(dict.fromkeys(data for _, data in (*self.received, *self.sent)))


class Seen(NamedTuple):
    """What a node of a process kept: messages it carried, those its gates opened, keys by peer."""

    carried: list[bytes]
    opened: list[Message]
    keys: dict[int, Keys]

    @property
    def channels(self) -> dict[int, Channel]:
        """The pairwise keys, to try them on what was carried."""
        return {peer: Channel(*keys) for peer, keys in self.keys.items()}

    @classmethod
    def load(cls, folder: Path, name: str) -> Seen:
        return cls(*pickle.loads((folder / name).read_bytes()))


class Spy:
    """Sees into every node of this process: ``opened`` and ``channels`` by the node's name."""

    def __init__(self, patch: Callable[[Any, str, Any], None] = setattr) -> None:
        self.opened: dict[str, list[Message]] = {}
        self.channels: dict[str, dict[int, Channel]] = {}
        self._recording: Recording | None = None
        accept, made = Gate.accept, Session.__init__

        def opening(gate: Gate, frame: Any) -> Message:
            message = accept(gate, frame)
            self.opened.setdefault(gate._session.identity.name, []).append(message)
            return message

        def beginning(session: Session, *arguments: Any, **named: Any) -> None:
            made(session, *arguments, **named)
            self.channels[session.identity.name] = dict(session._channels)

        patch(Gate, "accept", opening)
        patch(Session, "__init__", beginning)

    def on(self, links: Links) -> Links:
        """The links of the one node of this process, whose messages are kept."""
        self._recording = Recording(links)
        return self._recording

    def save(self, folder: Path, name: str) -> None:
        """Leave everything for `Seen.load`."""
        keys = {
            peer: (channel._session, channel._send_key, channel._receive_key)
            for peer, channel in self.channels.get(name, {}).items()
        }
        carried = [] if self._recording is None else self._recording.carried
        (folder / name).write_bytes(pickle.dumps(tuple(Seen(carried, self.opened.get(name, []), keys))))

"""After a round all its members compare the hash of the model that they made of the sum: drift is not built upon."""

from __future__ import annotations

from pppml_fast.aggregation.attempt_state import Outcome
from pppml_fast.aggregation.correspondent import Correspondent
from pppml_fast.aggregation.messages import MessageType
from pppml_fast.aggregation.payloads import Digest
from pppml_fast.aggregation.session import Message
from pppml_fast.errors import ProtocolError
from pppml_fast.transport.base import Outgoing

__all__ = ["ModelHashes"]

_TOLD = 8
"""Hashes of one party after one sum: one, or a few where a caller compares more than once."""


class ModelHashes(Correspondent):
    """The part of a member's machine that tells its new model's hash and hears the others'.

    ``drift`` says whose model differs; ``outcome`` is the sum that the models are made of.
    """

    outcome: Outcome | None = None
    drift: ProtocolError | None = None

    @property
    def unconfirmed(self) -> frozenset[str]:
        """Names of the other members of the open sum that have not told the hash of their new model yet."""
        members = frozenset() if self.outcome is None else self.outcome.members
        names = self.session.roster.names
        return frozenset(names[index] for index in members - set(self._now.models) - {self.session.index})

    def _tell_model(self, hash_: bytes) -> list[Outgoing]:
        self._now.models.setdefault(self.session.index, []).append(hash_)
        self._compare_models()
        return self._broadcast(MessageType.MODEL_HASH, Digest(hash_).encode())

    def _on_model(self, message: Message) -> list[Outgoing]:
        hash_ = Digest.parse(message.body).value
        if len(self._now.models.get(message.header.sender, [])) >= _TOLD:
            raise ProtocolError(f"party {message.header.sender} told the hashes of {_TOLD} models already")
        self._now.models.setdefault(message.header.sender, []).append(hash_)
        self._compare_models()
        return []

    def _compare_models(self) -> None:
        models = self._now.models
        mine = models.get(self.session.index, [])
        for sender, theirs in models.items():
            if any(a != b for a, b in zip(mine, theirs, strict=False)):
                name = self.session.roster.everyone[sender].name
                self.drift = ProtocolError(
                    f"the model of {name!r} differs from this party's after round {self._now.id.round}; "
                    "find the cause and open a new session from a common model"
                )

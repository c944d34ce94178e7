"""The sum check of one attempt: what this party sees of B, and every member's tag, under keys that relays lack."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pppml_fast.aggregation.base import NeverPickled
from pppml_fast.aggregation.session import Session
from pppml_fast.aggregation.streams import Observer
from pppml_fast.cipher.sum_check import SumCheck
from pppml_fast.errors import OpeningError, ProtocolError
from pppml_fast.params import CkksParams

__all__ = ["SumTags"]

_NONCE = bytes(12)
"""Each tag has an encryption key of its own (attempt and sender), used once."""


class SumTags(NeverPickled):
    """The tags of the attempt that ``context`` names, 32 bytes, and the check that they are for."""

    def __init__(self, session: Session, context: bytes) -> None:
        self._session, self._context = session, context
        self._check: SumCheck | None = None
        self._tags: dict[int, bytes] = {}

    @property
    def key(self) -> bytes:
        """The key of the attempt's factors, from which each party makes the tag of its term."""
        return self._session.group_key("sum check", self._context)

    def observer(self, params: CkksParams, length: int) -> Observer:
        """What must see every chunk of B, a sum of ``length`` values."""
        self._check = SumCheck(params, length, self.key)
        return self._check.add

    def seal(self, tag: bytes, root: bytes) -> bytes:
        """This party's tag, sealed for all members, bound to the sum that it is for."""
        own = self._session.index
        self._tags[own] = self._cipher(own).encrypt(_NONCE, tag, root)
        return self._tags[own]

    def take(self, sender: int, sealed: bytes) -> None:
        """Keep a member's tag. Raises ProtocolError on a second one."""
        if sender in self._tags:
            raise ProtocolError(f"a tag of party {sender} is here already")
        self._tags[sender] = sealed

    def verify(self, members: Iterable[int], root: bytes) -> None:
        """Raise OpeningError unless B is the sum of the terms that the members' tags are for."""
        if self._check is None:
            raise OpeningError("nothing of the sum was seen; it cannot be checked")
        tags = []
        for index in sorted(members):
            try:
                tags.append(self._cipher(index).decrypt(_NONCE, self._tags.get(index, b""), root))
            except (InvalidTag, ValueError):
                raise OpeningError(f"party {index} sent no valid tag; the sum cannot be checked") from None
        self._check.verify(tags)

    def close(self) -> None:
        """Forget the check."""
        self._check = None

    def _cipher(self, index: int) -> AESGCM:
        label = index.to_bytes(2, "little")
        return AESGCM(self._session.group_key("sum check tag", self._context, label))

"""Small federations and faults for the tests of sessions and protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast import CkksParams, Layout, quantize
from pppml_fast.aggregation import Federation, open_federation
from pppml_fast.aggregation.messages import MessageType, parse_frame
from pppml_fast.transport import Delivery

NAMES = ("north", "east", "south", "west", "centre")
SIZE = 9000
LAYOUT = Layout.from_arrays({"stem": np.zeros((50, 80), np.float32), "head": np.zeros(5000, np.float32)})
Vectors = dict[str, NDArray[np.float32]]


def parameters(parties: int, protocol: str = "collective", weights: str = "public", name: str = "p31") -> CkksParams:
    """The set that fits a protocol, clip 1."""
    keys = "public" if protocol == "initiator" else "collective"
    return CkksParams.preset(name, parties=parties, clip=1.0, keys=keys, weights=weights)


def federation(parties: int = 3, protocol: str = "collective", topology: str = "ring", **options: Any) -> Federation:
    """A federation with small chunks, so that every vector takes several."""
    options.setdefault("params", parameters(parties, protocol))
    options.setdefault("layout", LAYOUT)
    options.setdefault("chunk_blocks", 2)
    return open_federation(NAMES[:parties], protocol=protocol, topology=topology, **options)


def vectors(parties: int = 3, seed: int = 0) -> Vectors:
    """Updates of which some values are clipped."""
    generator = np.random.default_rng(seed)
    return {name: generator.normal(0, 0.4, SIZE).astype(np.float32) for name in NAMES[:parties]}


def kind_of(data: bytes) -> MessageType:
    """Type of a frame."""
    return parse_frame(data).header.type


def sender_of(data: bytes) -> str:
    """Name of a frame's sender (members only)."""
    return NAMES[parse_frame(data).header.sender]


def drop_when(fed: Federation, party: str, condition: Callable[[Delivery], bool]) -> None:
    """Cut ``party`` off just before the first message that meets the condition arrives; what it sent is lost."""

    def tamper(delivery: Delivery) -> list[bytes]:
        if party not in fed.network.dropped and condition(delivery):
            fed.network.drop(party)
        return [] if delivery.sender in fed.network.dropped else [delivery.data]

    fed.network.tamper = tamper


def expected_integers(params: CkksParams, values: Mapping[str, Any], shares: Mapping[str, float]) -> NDArray[np.int64]:
    """The sum of the quantised integers, computed openly."""
    total = np.zeros(SIZE, np.int64)
    for name, vector in values.items():
        total += quantize(params, vector, shares[name])
    return total

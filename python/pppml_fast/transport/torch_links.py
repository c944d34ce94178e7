"""Links over `torch.distributed`, for one cluster whose job starts and ends all nodes together.

Peers are ranks. Frames of the link protocol travel between them, each as its length and then its bytes, in tensors of
the host: over gloo as they are, over NCCL staged through the current CUDA device. The job's group is the only
authentication, and a lost connection is a lost peer: nothing is resumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from importlib import import_module
from threading import Thread
from typing import Any

import numpy as np

from pppml_fast.errors import ConfigError, ProtocolError
from pppml_fast.transport.base import LinkEvents
from pppml_fast.transport.endpoint import Endpoint, EndpointLinks, stop_all
from pppml_fast.transport.link import FRAGMENT, LIMIT, SMALL, WINDOW, Link

__all__ = ["TorchLinks"]

_FOREVER = timedelta(days=30)  # a link may be silent for as long as a round trains
_LEAVING = 0  # a length: nothing follows it, ever


class TorchLinks(EndpointLinks):
    """`Links` between ``name`` and ``peers`` (name to rank) in the process group that the job has initialised.

    ``ranks`` names every node of the job, this one too: all ranks must build their links at the same time, as one group
    per pair is made, in one order. ``incarnation``: 16 bytes, the job's. ``linger_s`` as for `GrpcLinks`.

    Raises ConfigError where torch.distributed is not initialised or the rank of ``name`` is another.
    """

    def __init__(
        self,
        name: str,
        incarnation: bytes,
        ranks: Mapping[str, int],
        *,
        window: int = WINDOW,
        limit: int = LIMIT,
        linger_s: float = 10.0,
    ) -> None:
        self._torch: Any = import_module("torch")
        self._group: Any = import_module("torch.distributed")
        if not self._group.is_initialized() or self._group.get_rank() != ranks.get(name):
            raise ConfigError(f"{name} must be rank {ranks.get(name)} of an initialised torch.distributed job")
        self._linger = linger_s
        self._ranks = {peer: rank for peer, rank in ranks.items() if peer != name}
        self._groups = self._pair_up(sorted(ranks.values()), ranks[name])
        self._on_gpu = self._group.get_backend() == "nccl"
        self._endpoints = {
            peer: Endpoint(Link(name, peer, incarnation, accepts=name < peer, window=window, limit=limit), 0.0)
            for peer in self._ranks
        }
        self._threads: list[Thread] = []

    def _pair_up(self, ranks: list[int], own: int) -> dict[tuple[int, int], Any]:
        """Two groups per pair, one for each direction: what one direction waits for never holds up the other."""
        found = {}
        for sender in ranks:
            for receiver in ranks:
                if sender != receiver:
                    group = self._group.new_group([sender, receiver], timeout=_FOREVER)
                    if own in (sender, receiver):
                        found[sender, receiver] = group
        return found

    def start(self, events: LinkEvents) -> None:
        """Begin; events come from now on, each peer's from a thread of its own."""
        for peer, endpoint in self._endpoints.items():
            endpoint.start(events)
            thread = Thread(target=self._run, args=(peer,), name=f"read {peer}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Tell every peer, and wait up to ``linger_s`` for each to stop as well."""
        stop_all(self._endpoints.values(), self._linger)
        for thread in self._threads:
            thread.join(self._linger)
        for endpoint in self._endpoints.values():
            endpoint.join(self._linger)

    def _run(self, peer: str) -> None:
        """One peer's only connection: a thread writes while this one reads."""
        endpoint = self._endpoints[peer]
        writer: Thread | None = None
        connection = 0
        try:
            if not endpoint.link.accepts:
                connection = endpoint.connect()
                writer = self._start_writer(peer, connection)
            while (frame := self._receive(self._ranks[peer])) is not None:
                if writer is None:
                    connection = endpoint.accept(frame)
                    writer = self._start_writer(peer, connection)
                else:
                    endpoint.receive(connection, frame)
        except (RuntimeError, ProtocolError):
            pass  # the peer is gone, or not of this version: down, either way
        endpoint.leave()
        if writer is not None:
            writer.join(self._linger)

    def _start_writer(self, peer: str, connection: int) -> Thread:
        writer = Thread(target=self._write, args=(peer, connection), name=f"write {peer}", daemon=True)
        writer.start()
        return writer

    def _write(self, peer: str, connection: int) -> None:
        rank = self._ranks[peer]
        try:
            for frame in self._endpoints[peer].frames(connection):
                self._post(rank, np.array([len(frame)], dtype=np.int64))
                self._post(rank, np.frombuffer(frame, dtype=np.uint8))
            self._post(rank, np.array([_LEAVING], dtype=np.int64))
        except RuntimeError:
            self._endpoints[peer].leave()

    def _post(self, rank: int, data: np.ndarray[Any, Any]) -> None:
        tensor = self._torch.from_numpy(data if data.flags.writeable else data.copy())
        group = self._groups[self._group.get_rank(), rank]
        self._group.isend(tensor.cuda() if self._on_gpu else tensor, rank, group=group).wait()

    def _receive(self, rank: int) -> bytes | None:
        """The next frame of a rank; None when it leaves. Raises RuntimeError when it is gone."""
        length = int(self._take(rank, 1, self._torch.int64)[0])
        if length == _LEAVING:
            return None
        if not 0 < length <= FRAGMENT + SMALL:
            raise ProtocolError(f"rank {rank} announces a frame of {length} bytes")
        return bytes(self._take(rank, length, self._torch.uint8).data)

    def _take(self, rank: int, length: int, dtype: Any) -> np.ndarray[Any, Any]:
        tensor = self._torch.empty(length, dtype=dtype, device="cuda" if self._on_gpu else "cpu")
        group = self._groups[rank, self._group.get_rank()]
        self._group.irecv(tensor, rank, group=group).wait()
        found: np.ndarray[Any, Any] = tensor.cpu().numpy()
        return found

"""A TCP proxy in user space: delay, stalls and cuts between two nodes, without touching what it carries.

`python proxy.py --listen H:P --to H:P --delay-ms 20 --cut-every 5 --stall-every 2 --stall-ms 300`, or `Proxy(...)` in a
test. Delay is one-way, in both directions; the rate stays what it is, as bytes wait beside each other. Loss on a real
network shows as stalls (TCP waits and sends again) and, at worst, as cuts.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import threading
import time
from collections.abc import Coroutine
from typing import Any

_PIECE = 1 << 18
_AHEAD = 64 << 20  # bytes that may be under way in one direction: above rate times delay


class Proxy:
    """Runs in a thread of its own between `start` and `stop`; ``port`` is where it listens.

    ``cut_every`` and ``stall_every``: mean seconds between cuts of all connections and between stalls of ``stall_ms``;
    ``seed`` makes their times the same again.
    """

    def __init__(
        self,
        to: tuple[str, int],
        listen: tuple[str, int] = ("127.0.0.1", 0),
        *,
        delay_ms: float = 0.0,
        cut_every: float = 0.0,
        stall_every: float = 0.0,
        stall_ms: float = 200.0,
        seed: int = 0,
    ) -> None:
        self.cuts = self.connections = self.carried = 0
        self._to, self._delay = to, delay_ms / 1000
        self._cut_every, self._stall_every, self._stall = cut_every, stall_every, stall_ms / 1000
        self._random = random.Random(seed)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._cut_after = 0  # bytes of all connections together; 0 for never
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        self._socket = socket.create_server(listen)
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def start(self) -> Proxy:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def cut(self) -> None:
        """Reset every connection now."""
        self._loop.call_soon_threadsafe(self._cut)

    def cut_after(self, count: int) -> None:
        """Reset every connection when ``count`` more bytes were carried."""
        self._cut_after = self.carried + count

    def refuse(self, refusing: bool = True) -> None:
        """A partition: cut, and close whatever comes, until told otherwise."""
        self._refusing = refusing
        if refusing:
            self.cut()

    def __enter__(self) -> Proxy:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._spawn(self._serve())
        if self._cut_every:
            self._spawn(self._keep_cutting())
        self._loop.run_forever()
        self._socket.close()
        self._cut()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connect, sock=self._socket, limit=_PIECE)
        await server.serve_forever()

    async def _keep_cutting(self) -> None:
        while True:
            await asyncio.sleep(self._random.expovariate(1 / self._cut_every))
            self._cut()

    def _cut(self) -> None:
        self.cuts += bool(self._writers)
        for writer in list(self._writers):
            writer.transport.abort()
        self._writers.clear()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            onward, back = await asyncio.open_connection(*self._to, limit=_PIECE)
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        self._writers |= {writer, back}
        self._spawn(self._carry(reader, back))
        self._spawn(self._carry(onward, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction: what was read is due ``delay`` later; until then more is read."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_AHEAD // _PIECE)
        self._spawn(self._release(under_way, writer))
        try:
            while data := await reader.read(_PIECE):
                await under_way.put((time.monotonic() + self._delay, data))
                self.carried += len(data)
                if 0 < self._cut_after <= self.carried:
                    self._cut_after = 0
                    self._cut()
        except OSError:
            pass
        await under_way.put((time.monotonic() + self._delay, b""))

    async def _release(self, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        next_stall = time.monotonic() + self._until_stall()
        try:
            while True:
                due, data = await under_way.get()
                if (left := due - time.monotonic()) > 0:
                    await asyncio.sleep(left)
                if time.monotonic() > next_stall:
                    await asyncio.sleep(self._stall)
                    next_stall = time.monotonic() + self._until_stall()
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()
        self._writers.discard(writer)
        while not under_way.empty():  # nothing waits for room that will not be
            under_way.get_nowait()

    def _until_stall(self) -> float:
        return self._random.expovariate(1 / self._stall_every) if self._stall_every else float("inf")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", type=_address, required=True)
    parser.add_argument("--to", type=_address, required=True)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--cut-every", type=float, default=0.0, help="mean seconds; 0 for never")
    parser.add_argument("--stall-every", type=float, default=0.0, help="mean seconds; 0 for never")
    parser.add_argument("--stall-ms", type=float, default=200.0)
    parser.add_argument("--seed", type=int, default=0)
    chosen = vars(parser.parse_args())
    proxy = Proxy(chosen.pop("to"), chosen.pop("listen"), **chosen)
    print(f"listening on port {proxy.port}", flush=True)
    with proxy:
        threading.Event().wait()


if __name__ == "__main__":
    main()

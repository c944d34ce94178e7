"""One rank of `test_torch_links`: sends to every other node, hears from them, and says what it got."""

from __future__ import annotations

import sys

import torch.distributed as job
from recorder import Recorder

from pppml_fast.transport.torch_links import TorchLinks

SIZES = (0, 1, 64, 1 << 20, (5 << 20) + 3)
NAMES = ("a", "b", "c")


def content(sender: str, receiver: str, number: int) -> bytes:
    return (sender + receiver + str(number)).encode().ljust(SIZES[number], b".")[: SIZES[number]]


def main() -> None:
    rank, folder = int(sys.argv[1]), sys.argv[2]
    name = NAMES[rank]
    job.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=len(NAMES))
    links = TorchLinks(name, b"0123456789abcdef", {name: rank for rank, name in enumerate(NAMES)}, window=2 << 20)
    recorder = Recorder()
    links.start(recorder)
    others = [peer for peer in NAMES if peer != name]
    for peer in others:
        recorder.wait_up(peer)
        for number in range(len(SIZES)):
            links.send(peer, content(name, peer, number))
    for peer in others:
        expected = [content(peer, name, number) for number in range(len(SIZES))]
        assert recorder.wait_messages(peer, len(SIZES)) == expected
    links.stop()
    assert recorder.incarnations == [b"0123456789abcdef"] * 2
    job.destroy_process_group()
    print(f"{name} heard {sum(map(len, recorder.messages.values()))}")


if __name__ == "__main__":
    main()

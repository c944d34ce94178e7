"""What the kernels reach on a GPU, beside what was aimed at and predicted (docs/gpu.md): `python figures.py OUT.json`.

    python figures.py OUT.json [--weights N] [--parameters N]

Everything is measured with events on PyTorch's current stream, device-resident unless it says otherwise: medians of
repeated runs after warming up, over inputs much larger than the caches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import native  # noqa: F401  (first: it chooses the extension)
import numpy as np
import torch

import pppml_fast as pf
from pppml_fast import _native, cuda

KEY = bytes(range(32))
REPEATS = 9
BILLION = 1e9
# (aim, prediction for an H100) in the unit of each figure; docs/gpu.md derives the predictions.
AIMS: dict[str, tuple[float, float]] = {
    "encrypt p31, 1e9 weights/s": (40, 40),
    "open p31, 1e9 weights/s": (60, 61),
    "add two, share of a copy's bandwidth": (0.8, 0.95),
    "7e9 bfloat16, encrypt, ms": (250, 175),
    "7e9 bfloat16, open, ms": (200, 115),
    "end to end to pinned memory, share of PCIe": (0.8, 0.9),
}


class Device:
    """One parameter set with fixed keys, and the memory of its operations."""

    def __init__(self, name: str) -> None:
        self.params = pf.CkksParams.preset(name, parties=3, clip=1.0, keys="collective")
        self.host = self.params._scheme
        self.scheme = _native.cuda.DeviceScheme(self.host, 0)
        self.noise = _native.StreamKey.from_bytes(KEY)
        self.secret = self.host.generate_secret(_native.StreamKey.from_bytes(KEY))

    def words(self, length: int) -> torch.Tensor:
        count = int(self.host.words(length, True)) * int(self.host.word_bytes)
        return torch.empty(count, dtype=torch.uint8, device="cuda")

    def packed(self, length: int) -> torch.Tensor:
        count = int(self.host.packed_bytes(length, True, 0, self.params.block_count(length)))
        return torch.empty(count, dtype=torch.uint8, device="cuda")

    def encrypt(self, rows: list[tuple[int, int, str]], out: torch.Tensor, packed: bool) -> Any:
        length = sum(row[1] for row in rows)
        return self.scheme.encrypt(self.secret, self.noise, KEY, length, rows, 1.0, out.data_ptr(), packed, stream())

    def open(self, length: int, c0: torch.Tensor, packed: bool, rows: list[tuple[int, int, str]]) -> Any:
        return self.scheme.open(self.secret, length, 1, c0.data_ptr(), None, packed, KEY, 0, rows, stream())


def stream() -> int:
    return int(torch.cuda.current_stream().cuda_stream)


def rows_of(tensors: list[torch.Tensor]) -> list[tuple[int, int, str]]:
    return [(t.data_ptr(), t.numel(), str(t.dtype).removeprefix("torch.")) for t in tensors]


def median_ms(body: Callable[[], Any], repeats: int = REPEATS) -> float:
    body()
    body()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        kept = body()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
        del kept
    return statistics.median(times)


def rates(name: str, length: int) -> dict[str, float]:
    """Encryption, opening and sums of one set, in 1e9 weights per second, and the share of a copy's bandwidth."""
    device = Device(name)
    weights = torch.randn(length, device="cuda") * 0.3
    words, packed = device.words(length), device.packed(length)
    opened = torch.empty(length, device="cuda")
    report = device.encrypt(rows_of([weights]), packed, True)
    clipped, non_finite, *_ = report.wait()
    assert clipped > 0 and non_finite is None
    figures = {}
    for form, out in (("words", words), ("bytes", packed)):
        time = median_ms(lambda out=out: device.encrypt(rows_of([weights]), out, out is packed))
        figures[f"encrypt {name} to {form}, 1e9 weights/s"] = length / time / 1e6
        time = median_ms(lambda out=out: device.open(length, out, out is packed, rows_of([opened])))
        assert device.open(length, out, out is packed, rows_of([opened])).wait()[4] is None
        figures[f"open {name} from {form}, 1e9 weights/s"] = length / time / 1e6
    integers = pf.quantize(device.params, weights[:100_000].cpu().numpy())
    exact = torch.from_numpy(integers * device.params.step)
    assert torch.equal(opened[:100_000].cpu(), exact.float())
    other, total = words.clone(), torch.empty_like(words)
    add = median_ms(
        lambda: device.scheme.add(length, True, [words.data_ptr(), other.data_ptr()], total.data_ptr(), stream())
    )
    copy = median_ms(lambda: total.copy_(other))
    figures[f"add two {name}, GB/s"] = 3 * words.numel() / add / 1e6
    figures[f"device copy beside {name}, GB/s"] = 2 * words.numel() / copy / 1e6
    return figures


def model_of(parameters: int) -> list[torch.Tensor]:
    """bfloat16 tensors shaped as a large language model's, of about so many parameters."""
    width, hidden, vocabulary = (4096, 11008, 32000) if parameters > 10**9 else (32, 86, 250)
    layer = [(width, width)] * 4 + [(hidden, width)] * 2 + [(width, hidden), (width,), (width,)]
    shapes: list[tuple[int, ...]] = [(vocabulary, width)]
    per_layer = sum(int(np.prod(shape)) for shape in layer)
    layers = max(1, round((parameters - 2 * vocabulary * width) / per_layer))
    shapes += layer * layers + [(vocabulary, width)]
    return [torch.randn(shape, device="cuda", dtype=torch.bfloat16) * 0.02 for shape in shapes]


def whole_model(wanted: int) -> dict[str, float]:
    """A model of so many parameters, or what fits into free memory: its tensors to packed bytes, and back into them."""
    free, _ = torch.cuda.mem_get_info()
    tensors = model_of(min(wanted, int(free * 0.9 / (2 + 2 + 3.875))))
    device, length = Device("p31"), sum(t.numel() for t in tensors)
    packed = device.packed(length)
    back = [torch.empty_like(t) for t in tensors]
    encrypt = median_ms(lambda: device.encrypt(rows_of(tensors), packed, True), repeats=3)
    opened = median_ms(lambda: device.open(length, packed, True, rows_of(back)), repeats=3)
    assert device.open(length, packed, True, rows_of(back)).wait()[4] is None
    worst = max(float((a - b).abs().max()) for a, b in zip(tensors[:3], back[:3], strict=True))
    assert worst < 0.01, worst
    scale = 7e9 / length
    return {
        "model, parameters": float(length),
        "7e9 bfloat16, encrypt, ms": encrypt * scale,
        "7e9 bfloat16, open, ms": opened * scale,
    }


def end_to_end(length: int) -> dict[str, float]:
    """From device weights to packed bytes in pinned host memory, chunk by chunk on two streams, beside a plain copy."""
    device = Device("p31")
    weights = torch.randn(length, device="cuda") * 0.3
    blocks, step = device.params.block_count(length), 4096
    packed = device.packed(length)
    pinned = torch.empty(packed.numel(), dtype=torch.uint8, pin_memory=True)
    compute, copies = torch.cuda.Stream(), torch.cuda.Stream()

    def pipeline() -> None:
        at = 0
        start = torch.cuda.current_stream()
        compute.wait_stream(start)
        reports = []
        for first in range(0, blocks, step):
            last = min(first + step, blocks)
            size = int(device.host.packed_bytes(length, True, first, last))
            with torch.cuda.stream(compute):
                reports.append(
                    device.scheme.encrypt(
                        device.secret, device.noise, KEY, length, rows_of([weights]), 1.0, packed.data_ptr() + at, True,
                        stream(), start=first, stop=last,
                    )
                )  # fmt: skip
            copies.wait_stream(compute)
            with torch.cuda.stream(copies):
                pinned[at : at + size].copy_(packed[at : at + size], non_blocking=True)
            at += size
        start.wait_stream(copies)

    whole = median_ms(pipeline)
    plain = median_ms(lambda: pinned.copy_(packed, non_blocking=True))
    return {
        "end to end to pinned memory, GB/s": packed.numel() / whole / 1e6,
        "plain copy to pinned memory, GB/s": packed.numel() / plain / 1e6,
    }


def through_aggregators(length: int) -> dict[str, float]:
    """What a ring or a star asks of a device: an update's identity, and its encryption chunk by chunk, by the clock."""
    device = Device("p31")
    weights = cuda.DeviceArray.from_host((torch.randn(length) * 0.3).numpy())
    identify = median_ms(lambda: cuda.tag_pieces(weights, KEY[:16], 1 << 16))
    blocks, step = device.params.block_count(length), 120
    out = bytearray(int(device.host.packed_bytes(length, True, 0, min(step, blocks))))

    def pieces() -> None:
        made = cuda.encrypt_in_pieces(pf.CollectiveKey.generate(device.params), weights, KEY)
        for first in range(0, blocks, step):
            last = min(first + step, blocks)
            made.write(first, last, memoryview(out)[: made.packed_bytes(first, last)])

    began = time.perf_counter()
    pieces()
    seconds = time.perf_counter() - began
    return {
        "identify an update, 1e9 weights/s": length / identify / 1e6,
        "encrypt p31 in chunks to host memory, 1e9 weights/s": length / seconds / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the CUDA kernels.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=int, default=2048 * 65536, help="of one operation; by default 0.5 GB of them")
    parser.add_argument("--parameters", type=int, default=7 * 10**9, help="of the model that is encrypted as a whole")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    length = arguments.weights
    for name in ("p31", "compact", "p50", "p62"):
        figures |= rates(name, length)
    figures |= end_to_end(length)
    figures |= through_aggregators(length)
    torch.cuda.empty_cache()
    figures |= whole_model(arguments.parameters)
    figures["encrypt p31, 1e9 weights/s"] = figures["encrypt p31 to bytes, 1e9 weights/s"]
    figures["open p31, 1e9 weights/s"] = figures["open p31 from bytes, 1e9 weights/s"]
    figures["add two, share of a copy's bandwidth"] = (
        figures["add two p31, GB/s"] / figures["device copy beside p31, GB/s"]
    )
    figures["end to end to pinned memory, share of PCIe"] = (
        figures["end to end to pinned memory, GB/s"] / figures["plain copy to pinned memory, GB/s"]
    )
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    for name, value in figures.items():
        print(f"{name:50s} {value:10.3g}")
    print(f"\n{torch.cuda.get_device_name()}, {cuda.device_info(0).capability}")
    print(f"{'figure':46s} {'measured':>10s} {'aim':>8s} {'predicted':>10s}")
    for name, (aim, predicted) in AIMS.items():
        met = figures[name] <= aim if name.endswith("ms") else figures[name] >= aim
        print(f"{name:46s} {figures[name]:10.3g} {aim:8.3g} {predicted:10.3g} {'met' if met else 'not met'}")


if __name__ == "__main__":
    main()

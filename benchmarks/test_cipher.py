"""Encrypting, adding, opening and the wire: by setting, backend, threads, size, warm and fresh memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pppml_fast as pf
from pppml_fast.bench.ours import CONTEXT, PARTIES, Workbench

SETTINGS = [
    "p31/collective",
    "p31/public",
    "p31/secret",
    "p50/collective",
    "p50/public",
    "p62/collective",
    "p62x3/collective",
    "compact/collective",
]
Make = Callable[[str, int, str], Workbench]

pytestmark = pytest.mark.parametrize("setting", SETTINGS, scope="module")
# Warm outputs are the caller's and were written before; fresh ones are made by every call.
memory = pytest.mark.parametrize("memory", ["warm", "fresh"])


def timed(benchmark: Any, bench: Workbench, run: Callable[..., Any], prepare: Callable[[], Any] = lambda: None) -> Any:
    """The last result of ``run(prepare())``; only `run` is timed, five times after one more."""
    benchmark.extra_info["weights"] = bench.size
    return benchmark.pedantic(run, setup=lambda: ((prepare(),), {}), rounds=5, warmup_rounds=1)


@memory
def test_encrypt(
    benchmark: Any, workbench: Make, setting: str, size: int, backend: str, threads: int, memory: str
) -> None:
    bench = workbench(setting, size, backend)

    def fresh(encryptor: Any) -> Any:
        return encryptor, encryptor.encrypt(bench.weights[0])

    result = timed(benchmark, bench, bench.run_encrypt if memory == "warm" else fresh, bench.encryptor)
    assert bench.check_encrypt(result) == 0


@memory
@pytest.mark.parametrize("count", [2, PARTIES])
def test_add(
    benchmark: Any, workbench: Make, setting: str, size: int, backend: str, threads: int, memory: str, count: int
) -> None:
    bench = workbench(setting, size, backend)
    warm, fresh = lambda _: bench.run_add(count), lambda _: pf.add(bench.ciphertexts[:count])
    total = timed(benchmark, bench, warm if memory == "warm" else fresh)
    assert total.terms == count and bench.check_sum(total) == 0


@memory
def test_open(
    benchmark: Any, workbench: Make, setting: str, size: int, backend: str, threads: int, memory: str
) -> None:
    bench = workbench(setting, size, backend)

    def fresh(key: Any) -> Any:
        return key.decrypt_bytes(bench.sum_wire)

    opened = timed(benchmark, bench, bench.run_open if memory == "warm" else fresh, lambda: bench.opener(PARTIES))
    assert bench.check_open(opened) == 0


def test_pack(benchmark: Any, workbench: Make, setting: str, size: int, backend: str, threads: int) -> None:
    bench = workbench(setting, size, backend)
    assert bench.check_pack(timed(benchmark, bench, bench.run_pack)) == 0


def test_unpack(benchmark: Any, workbench: Make, setting: str, size: int, backend: str, threads: int) -> None:
    bench = workbench(setting, size, backend)
    assert bench.check_unpack(timed(benchmark, bench, bench.run_unpack)) == 0


def test_quantize(benchmark: Any, workbench: Make, setting: str, size: int, backend: str) -> None:
    bench = workbench(setting, size, backend)
    values = timed(benchmark, bench, lambda _: pf.quantize(bench.params, bench.weights[0]))
    restored = pf.dequantize(bench.params, values, dtype=np.float64)
    exact = bench.weights[0].astype(np.float64).clip(-bench.params.clip, bench.params.clip)
    assert abs(restored - exact).max() <= 0.51 * bench.params.step + bench.params.clip * 2**-50


def test_hop(benchmark: Any, workbench: Make, setting: str, size: int, backend: str, threads: int) -> None:
    bench = workbench(setting, size, backend)
    assert bench.check_hop(timed(benchmark, bench, bench.run_hop)) == 0


def test_ring(benchmark: Any, workbench: Make, setting: str, size: int, backend: str) -> None:
    """Sixteen turns in a row: what arrives at the opener after a whole pass."""
    bench = workbench(setting, size, backend)

    def ring(_: object) -> memoryview:
        payload = bench.passed_payload
        payload[:] = bench.incoming
        for mine in bench.ciphertexts[1:]:
            mine.hop(payload, 0, mine.block_count, out=payload)
        return payload

    assert timed(benchmark, bench, ring) == bench.sum_payload


def test_key_generation(benchmark: Any, workbench: Make, setting: str, size: int, backend: str) -> None:
    params = workbench(setting, size, backend).params
    one = [0.125]
    if params.keys == "collective":
        key = benchmark(pf.CollectiveKey.generate, params)
        opened = pf.CollectiveKey.sum([key]).decrypt(key.encrypt(one, CONTEXT))
    else:
        pair = benchmark(pf.keygen, params)
        opened = pair.secret.decrypt((pair.public or pair.secret).encrypt(one))
    assert abs(opened[0] - one[0]) <= params.step

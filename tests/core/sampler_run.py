"""Every sampler on every backend and cipher at 10^8 draws, held to the bounds of `bounds.py`: ``make test-samplers``.

    python tests/core/sampler_run.py [--draws N] [--backend NAME ...] [--workers W]

One line per sampler with what was seen, and ``N passed, 0 failed`` at the end; exit status 1 when one fails. The keys
are fixed and others than those of the tests, which draw 2^22 to 2^26 numbers each.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from bounds import ALARM, Law, assert_chi_square, assert_distribution, assert_mean
from draws import BACKENDS, GAUSSIAN, TERNARY, key_of

from pppml_fast import _native
from pppml_fast.params import PRESETS

primitives = _native.primitives
DRAWS = 10**8
BINS = 512
# Draws per call: the histogram of one call stays in the cache.
CHUNK = 2**16


@dataclass(frozen=True)
class Job:
    """One sampler: ``what`` is a Gaussian table, "ternary", or a prime whose residues are drawn."""

    backend: str
    cipher: str
    what: str | int
    draws: int

    def __str__(self) -> str:
        return f"{self.backend:7s} {self.cipher:9s} {self.what!s:18s}"


def jobs(backends: Sequence[str], draws: int) -> list[Job]:
    """All samplers, the slowest backend first so that no worker ends with it."""
    primes = dict.fromkeys(q for ring in PRESETS.values() for q in ring.primes)
    found = []
    for backend in sorted(backends, key=lambda name: name != "scalar"):
        for cipher in ("chacha20", "aes256"):
            found += [Job(backend, cipher, what, draws) for what in (*sorted(GAUSSIAN), "ternary")]
        found += [Job(backend, "chacha20", q, draws) for q in primes]  # public expansions know no other cipher
    return found


def small_histogram(job: Job, law: Law) -> np.ndarray:
    """Counts per value of a Gaussian or ternary sampler."""
    key, counts = key_of("10^8", job.backend, job.cipher, job.what), np.zeros(law.probabilities.size, np.int64)
    draw: Callable[..., np.ndarray] = (
        primitives.ternary if job.what == "ternary" else functools.partial(primitives.gaussian, job.what)
    )
    for block, first in enumerate(range(0, job.draws, CHUNK)):
        counts += law.histogram(draw(key, 1, block, min(CHUNK, job.draws - first), job.backend, job.cipher))
    return counts


def check_small(job: Job) -> str:
    """Hold a Gaussian or ternary sampler to its law; what was seen, in words."""
    law = TERNARY if job.what == "ternary" else GAUSSIAN[str(job.what)]
    counts = small_histogram(job, law)
    assert_distribution(law, counts, str(job.what))
    x, share = law.values.astype(float), counts / counts.sum()
    mean, variance = float(share @ x), float(share @ x**2)
    kurtosis = float(share @ x**4) / variance**2
    return (
        f"mean {mean:+.5f}  variance {variance:.5f} (law {law.moment(2):.5f})  "
        f"kurtosis {kurtosis:.4f} ({law.moment(4) / law.moment(2) ** 2:.4f})  largest {int(abs(x[counts > 0]).max())}"
    )


def check_uniform(job: Job) -> str:
    """Hold the residues of a prime to the uniform law: by size, by low bits, on average."""
    q = int(job.what)
    log_degree, key = 11 if q < 2**31 else 12, key_of("10^8", job.backend, q)
    sizes, low, total, drawn = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64), 0.0, 0
    block = 0
    while drawn < job.draws:
        row = primitives.uniform(q, log_degree, key, 0, block, job.backend)
        assert int(row.max()) < q, f"block {block} holds a residue that is not below {q}"
        sizes += np.bincount((row / (q / BINS)).astype(np.int64), minlength=BINS)
        low += np.bincount((row % np.uint64(BINS)).astype(np.int64), minlength=BINS)
        total += float((row / (q - 1) - 0.5).sum())
        drawn, block = drawn + row.size, block + 1
    # Bins differ in width by less than 2^-21 of it; 512 divides q - 1, so that its low bits are even.
    even = np.full(BINS, 1 / BINS)
    assert_chi_square(sizes, even, "bins by size")
    assert_chi_square(low, even, "low bits")
    assert_mean(total, drawn, 0, 1 / 12, 0.5, "mean")
    chi = [float(((c - drawn / BINS) ** 2).sum() / (drawn / BINS)) for c in (sizes, low)]
    return f"mean {total / drawn:+.6f} of q  chi-square by size {chi[0]:.0f}, by low bits {chi[1]:.0f} (law {BINS - 1})"


def run(job: Job) -> tuple[bool, str]:
    """Whether the sampler passed, and its line."""
    try:
        seen = check_uniform(job) if isinstance(job.what, int) else check_small(job)
    except AssertionError as error:
        return False, f"FAILED  {job} {error}"
    return True, f"passed  {job} {seen}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all samplers; 0 when none fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--backend", action="append", choices=BACKENDS, help="may be repeated; all by default")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    if options.draws < 2**16:
        parser.error(f"--draws {options.draws}: fewer than {2**16} tell nothing")
    work = jobs(options.backend or BACKENDS, options.draws)
    sys.stdout.write(f"{len(work)} samplers, {options.draws} draws each, alarm 2^{math.log2(ALARM):.0f} a statistic\n")
    passed = 0
    with ProcessPoolExecutor(options.workers) as pool:
        for good, line in pool.map(run, work) if options.workers > 1 else map(run, work):
            passed += good
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    sys.stdout.write(f"{passed} passed, {len(work) - passed} failed\n")
    return 0 if passed == len(work) else 1


if __name__ == "__main__":
    sys.exit(main())

"""The long run over all samplers, made short; `make test-samplers` runs it at 10^8 draws."""

import numpy as np
import pytest
import sampler_run
from draws import BACKENDS
from sampler_run import Job, jobs, main, run

from pppml_fast.params import PRESETS


def test_a_short_run_passes_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--draws", str(2**17), "--backend", BACKENDS[0], "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{len(lines) - 2} passed, 0 failed"
    assert len(lines) - 2 == len(jobs([BACKENDS[0]], 1))


def test_every_sampler_backend_and_cipher_is_in_it() -> None:
    work = {(job.backend, job.cipher, job.what) for job in jobs(BACKENDS, 1)}
    primes = {q for ring in PRESETS.values() for q in ring.primes}
    private = ("collective_error", "collective_secret", "error", "ternary")
    expected = {(b, c, w) for b in BACKENDS for c in ("chacha20", "aes256") for w in private}
    assert work == expected | {(b, "chacha20", q) for b in BACKENDS for q in primes}


class Faulty:
    """The core's samplers, but one draw in a hundred loses its sign, or one residue in a hundred is halved."""

    def __init__(self, real: object) -> None:
        self.gaussian = lambda *a: self.spoil(real.gaussian(*a), np.abs)  # type: ignore[attr-defined]
        self.ternary = lambda *a: self.spoil(real.ternary(*a), np.abs)  # type: ignore[attr-defined]
        self.uniform = lambda *a: self.spoil(real.uniform(*a), lambda x: x // 2)  # type: ignore[attr-defined]

    @staticmethod
    def spoil(draws: np.ndarray, how: object) -> np.ndarray:
        draws[::50] = how(draws[::50])  # type: ignore[operator]
        return draws


@pytest.mark.parametrize("what", ["collective_error", "ternary", 2147389441])
def test_a_faulty_sampler_fails(what: str | int, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(BACKENDS[0], "chacha20", what, 2**21)
    assert run(job)[0]
    monkeypatch.setattr(sampler_run, "primitives", Faulty(sampler_run.primitives))
    passed, line = run(job)
    assert not passed
    assert line.startswith("FAILED")

"""Where there is no atheris: a deterministic mutation driver that takes libFuzzer's options, as `driver.cpp` does.

The same seed gives the same inputs. A finding is an exception that leaves the target, an input that takes longer than
its limit, or memory beyond a bound; its input is saved.
"""

from __future__ import annotations

import random
import resource
import signal
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

__all__ = ["SlowInputError", "fuzz"]

MEMORY_BYTES = 1 << 30
SAMPLED = 256


class SlowInputError(Exception):
    """An input took longer than its limit."""


def fuzz(
    target: Callable[[bytes], None],
    corpus: Sequence[bytes],
    *,
    runs: int,
    seed: int,
    timeout: int,
    max_len: int,
    artifact: Path,
    dictionary: Sequence[bytes] = (),
) -> int:
    """Run ``target`` on the corpus and then on changes of it, ``runs`` inputs in all; 0, or 1 after a finding."""
    _limit_memory()
    signal.signal(signal.SIGALRM, _too_slow)
    chance, pool = random.Random(seed), [b"", *corpus]
    for done in range(runs):
        data = pool[done] if done <= len(corpus) else mutate(chance, pool, dictionary)[:max_len]
        try:
            signal.alarm(timeout)
            target(data)
            signal.alarm(0)
        except BaseException:
            signal.alarm(0)
            artifact.write_bytes(data)
            traceback.print_exc()
            print(f"Test unit written to {artifact}")
            print(f"stat::number_of_executed_units: {done + 1}")
            return 1
        if done > len(corpus):
            if len(pool) <= len(corpus) + SAMPLED:
                pool.append(data)
            elif chance.random() < 1 / 64:
                pool[len(corpus) + 1 + chance.randrange(SAMPLED)] = data
    print(f"stat::number_of_executed_units: {runs}")
    return 0


def mutate(chance: random.Random, pool: Sequence[bytes], dictionary: Sequence[bytes]) -> bytes:
    """One to six edits of an input of the pool."""
    data = bytearray(chance.choice(pool))
    for _ in range(1 + chance.randrange(6)):
        _edit(chance, data, pool, dictionary)
    return bytes(data)


def _edit(chance: random.Random, data: bytearray, pool: Sequence[bytes], dictionary: Sequence[bytes]) -> None:
    kind = chance.randrange(9)
    at = chance.randrange(len(data)) if data else 0
    if not data or kind == 0:
        place, count = chance.randrange(len(data) + 1), chance.randrange(1, 33)
        data[place:place] = chance.randbytes(count) if chance.random() < 0.5 else bytes(count)
    elif kind == 1:
        data[at] ^= 1 << chance.randrange(8)
    elif kind == 2:
        data[at] = chance.randrange(256)
    elif kind == 3:
        count = min(len(data) - at, chance.randrange(1, 9))
        data[at : at + count] = chance.choice((b"\0", b"\xff")) * count
    elif kind == 4:
        del data[at : at + chance.randrange(1, 17)]
    elif kind == 5:
        del data[at:]
    elif kind == 6:
        data[at] = (data[at] + chance.randrange(-17, 18)) % 256
    elif kind == 7 and dictionary:
        data[at : at + chance.randrange(6)] = chance.choice(dictionary)
    else:
        other = chance.choice(pool)
        data[at:] = other[chance.randrange(len(other) + 1) :]


def _limit_memory() -> None:
    """Beyond what is mapped now, small inputs have no use for more than ``MEMORY_BYTES``."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _too_slow(signum: int, frame: FrameType | None) -> None:
    raise SlowInputError("the input takes longer than its limit")

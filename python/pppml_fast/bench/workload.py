"""A fixed amount of work for a profiler that counts instructions.

    python -m pppml_fast.bench.workload SIZE REPEATED CASE [CASE ...]    CASE is SETTING:OPERATION

Every case runs once. REPEATED is "none", or the case that then runs EXTRA_RUNS more: the difference of two such
processes is that case alone.
"""

from __future__ import annotations

import sys

from pppml_fast.bench.ours import our_cases
from pppml_fast.bench.run import use_threads

__all__ = ["EXTRA_RUNS", "main"]

# By operation: enough to drown what differs between two processes, the redraws of keys that came out too long.
EXTRA_RUNS = {"encrypt": 4, "open": 4, "pack": 100, "unpack": 100, "hop": 100, "add2": 400, "add16": 50}


def main(arguments: list[str]) -> None:
    """Do the work that the command line names."""
    size, repeated, names = int(arguments[0]), arguments[1], arguments[2:]
    settings = dict.fromkeys(name.partition(":")[0] for name in names)
    with use_threads(1):
        cases = {f"{case.setting}:{case.operation}": case for s in settings for case in our_cases(s, size, 1)}
        # The same keys are made in every process, used or not, so that they cancel in the difference.
        ready = {name: [cases[name].prepare() for _ in range(1 + EXTRA_RUNS[cases[name].operation])] for name in names}
        for name in names:
            cases[name].run(ready[name][0])
        if repeated != "none":
            for argument in ready[repeated][1:]:
                cases[repeated].run(argument)


if __name__ == "__main__":
    main(sys.argv[1:])

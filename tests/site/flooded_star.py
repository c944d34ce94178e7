"""A star in which one member floods the coordinator beside taking part: rounds and memory, as JSON.

python flooded_star.py FOLDER bulk|small|empty LEAST

The training goes on until so many messages were sent and half of them refused, and a few rounds beyond.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from loopback import RELAY, Star

from pppml_fast.site.events import EventKind

LEAST_ROUNDS = 6
LIAR = "site3"
FLOODS = {"bulk": os.urandom(2 << 20), "small": b"PPML" + os.urandom(90), "empty": b""}


def highest() -> int:
    """Bytes that this process held at most since the mark was put back."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def main() -> None:
    # What a member has under way to the coordinator is before its own next message: a small window, or it stops itself.
    star = Star(Path(sys.argv[1]), 4, rounds=1 << 30, window=1 << 16)
    star.recording.keep = False
    data, least = FLOODS[sys.argv[2]], int(sys.argv[3])
    star.run(lambda: bool(star.kinds(EventKind.ROUND_FINISHED)))
    Path("/proc/self/clear_refs").write_text("5")
    before, sent = highest(), 0
    ended = threading.Event()

    def flood() -> None:
        nonlocal sent
        links = star.links[LIAR]
        while not ended.is_set():
            if links.room(RELAY):
                links.send(RELAY, data)
                sent += 1
            else:
                ended.wait(0.001)

    def newest() -> int:
        return max(application.states[0].round for application in star.applications.values())

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        star.run(lambda: sent >= least and star.counts[RELAY, EventKind.REFUSED] >= least // 2)
        end = max(LEAST_ROUNDS, newest() + 4)
        for application in star.applications.values():
            application.rounds = end
        star.run()
    finally:
        ended.set()
        thread.join()
        star.stop()
    rounds = {name: application.states[0].round for name, application in star.applications.items()}
    report = {
        "rounds": sorted(set(rounds.values())),
        "end": end,
        "abandoned": len(star.kinds(EventKind.ABANDONED)),
        "messages": sent,
        "bytes": sent * len(data),
        "refused": star.counts[RELAY, EventKind.REFUSED],
        "grew": highest() - before,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()

"""A star in which one member floods the coordinator beside taking part: rounds and memory, as JSON.

python flooded_star.py FOLDER bulk|small|empty
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

ROUNDS = 6
LIAR = "site3"
FLOODS = {"bulk": os.urandom(2 << 20), "small": b"PPML" + os.urandom(90), "empty": b""}


def highest() -> int:
    """Bytes that this process held at most since the mark was put back."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def main() -> None:
    # What a member has under way to the coordinator is before its own next message: a small window, or it stops itself.
    star = Star(Path(sys.argv[1]), 4, rounds=ROUNDS, window=1 << 16)
    star.recording.keep = False
    data = FLOODS[sys.argv[2]]
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

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        star.run()
    finally:
        ended.set()
        thread.join()
        star.stop()
    rounds = {name: application.states[0].round for name, application in star.applications.items()}
    report = {
        "rounds": sorted(set(rounds.values())),
        "abandoned": len(star.kinds(EventKind.ABANDONED)),
        "messages": sent,
        "bytes": sent * len(data),
        "refused": star.counts[RELAY, EventKind.REFUSED],
        "grew": highest() - before,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()

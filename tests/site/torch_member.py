"""One member of a ring whose links are torch.distributed's.

`torchrun --standalone --nproc-per-node 3 torch_member.py FOLDER WEIGHTS ROUNDS`, with an empty FOLDER: a light
federation without a network. It checks the model that all its sums give, and prints how many rounds those were.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as job
from light_site import LightApplication, light_update

from pppml_fast import CkksParams, Layout, quantize
from pppml_fast.aggregation import AttemptLedger, Identity, MemoryStore, Policy, Roster, SessionOptions, Terms
from pppml_fast.aggregation import Member as RosterMember
from pppml_fast.quantize import dequantize
from pppml_fast.site.events import Event, EventKind, Events
from pppml_fast.site.lead import Timing
from pppml_fast.site.member import Member
from pppml_fast.site.runtime import Runtime
from pppml_fast.transport.torch_links import TorchLinks


def agree(identity: Identity, names: list[str], params: CkksParams, layout: Layout) -> tuple[Roster, Terms]:
    """A roster of the keys that the ranks tell each other: inside one job nobody else vouches for them."""
    keys: list[Any] = [None] * len(names)
    job.all_gather_object(keys, identity.public.hex())
    free = CkksParams.preset("p31", parties=len(names), clip=1.0, keys="collective", weights="free").to_dict()
    options = SessionOptions(chunk_blocks=4)
    members = tuple(RosterMember(name, key, 1 / len(names)) for name, key in zip(names, keys, strict=True))
    roster = Roster(members, params.to_dict(), free, layout.fingerprint.hex(), options)
    return roster, Terms(params.to_dict(), free, layout, options)


def main() -> None:
    folder, size, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    job.init_process_group("gloo")
    rank, count = job.get_rank(), job.get_world_size()
    names = [f"rank{index}" for index in range(count)]
    name, incarnation = names[rank], [os.urandom(16)]
    job.broadcast_object_list(incarnation)
    identity = Identity.generate(name)
    params = CkksParams.preset("p31", parties=count, clip=1.0, keys="collective", weights="public")
    layout = Layout.from_arrays({"w": np.zeros(size, np.float32)})
    roster, terms = agree(identity, names, params, layout)
    heard: list[Event] = []
    application = LightApplication(name, folder / name, size, rounds, sync=False)
    if application.states[0].round:
        raise SystemExit(f"{folder / name} holds the model of another run; give an empty folder")
    events = Events(time.time, [heard.append], strict=True)
    ledger = AttemptLedger(MemoryStore())
    # A rank never comes back by itself: there is nobody to linger for.
    timing = Timing(patience=60.0, linger=0.0, heartbeat=0.2)
    member = Member(identity, roster, Policy(), terms, ledger, application, events, timing)
    links = TorchLinks(name, incarnation[0], {peer: index for index, peer in enumerate(names)})
    runtime = Runtime(member, links)
    application.begin = lambda round_, salt: runtime.post(
        lambda: member.ready(round_, salt, light_update(name, round_, salt, size))
    )
    began = time.perf_counter()
    runtime.run()
    seconds = time.perf_counter() - began
    expected = np.zeros(size, np.float32)
    for round_ in range(rounds):
        updates = [quantize(params, light_update(one, round_, 0, size), 1 / count) for one in names]
        expected += np.asarray(dequantize(params, sum(updates)), np.float32)
    assert application.states[0].round == rounds
    assert np.array_equal(application.model(application.states[0]), expected), "a wrong sum"
    progress = [event.fields for event in heard if event.kind is EventKind.PROGRESS]
    assert progress[-1]["chunks"] == progress[-1]["back"] == progress[-1]["of"] > 1
    assert min(progress[-1]["bytes_in"].values()) > 0 and set(progress[-1]["bytes_out"]) == set(names) - {name}
    # The ranks share one pipe, unbuffered: a line and its end are one write, or another's line comes between.
    sys.stdout.write(f"{name} rounds={rounds} exact={rounds} weights={size} seconds={seconds:.2f}\n")
    job.destroy_process_group()


if __name__ == "__main__":
    main()

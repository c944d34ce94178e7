"""The judge of the fault kit sees each thing that it is there to see."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import paths  # noqa: F401  (before the modules it makes importable)
import pytest
from fault_checks import Checks, expected_mean

from pppml_fast import CkksParams

SIZE = 100
NAMES = ("site0", "site1", "site2")
WEIGHTS = dict.fromkeys(NAMES, 1 / 3)


def make_checks(parties: int = 3) -> Checks:
    params = CkksParams.preset("p31", parties=parties, clip=1.0, keys="collective", weights="public")
    return Checks(params, {f"site{index}": 1 / parties for index in range(parties)}, SIZE)


def tell(checks: Checks, name: str, what: str, attempt: int = 0, session: str = "ab", **fields: Any) -> None:
    checks.take(name, {"what": what, "session": session, "round": 0, "attempt": attempt, **fields})


def contribute(checks: Checks, attempt: int = 0, session: str = "ab", salts: tuple[int, ...] = (0, 0, 0)) -> str:
    """All put their updates in; the digest of the right mean."""
    for name, salt in zip(NAMES, salts, strict=True):
        tell(checks, name, "attempt_began", attempt, session, live=NAMES)
        tell(checks, name, "contributed", attempt, session, salt=salt)
    mean = expected_mean(checks.params, WEIGHTS, 0, dict(zip(NAMES, salts, strict=True)), SIZE)
    return sha256(mean).hexdigest()


def test_sums_that_are_right_are_exact_and_others_abandoned() -> None:
    checks = make_checks()
    contribute(checks, attempt=0)
    mean = contribute(checks, attempt=1)
    for name in NAMES:
        tell(checks, name, "accepted", 1, live=NAMES, mean=mean)
    assert (checks.wrong, checks.double_share) == ([], [])
    assert (len(checks.exact), checks.abandoned) == (1, 1)


def test_a_wrong_sum_is_wrong() -> None:
    checks = make_checks()
    contribute(checks)
    tell(checks, "site0", "accepted", live=NAMES, mean=sha256(b"something else").hexdigest())
    assert len(checks.wrong) == 1
    assert not checks.exact


def test_a_sum_waits_for_terms_that_are_told_later_and_is_wrong_without_them() -> None:
    """The lines of one party may be read before those of another that led to them."""
    other = make_checks()
    mean = contribute(other)
    for told, wrong in ((NAMES, 0), (NAMES[:2], 1)):
        checks = make_checks()
        tell(checks, "site0", "accepted", live=NAMES, mean=mean)
        for name in told:
            tell(checks, name, "contributed", salt=0)
        assert (checks.wrong, len(checks.exact)) == ([], 1 - wrong)
        checks.settle()
        assert len(checks.wrong) == wrong
        assert not wrong or "['site2'] put nothing in" in checks.wrong[0]


def test_a_wrong_sum_is_wrong_whichever_is_told_first() -> None:
    checks = make_checks()
    tell(checks, "site0", "accepted", live=NAMES, mean=sha256(b"something else").hexdigest())
    contribute(checks)
    assert len(checks.wrong) == 1
    assert not checks.exact


def test_two_sums_of_one_attempt_are_wrong() -> None:
    checks = make_checks()
    mean = contribute(checks)
    tell(checks, "site0", "accepted", live=NAMES, mean=mean)
    tell(checks, "site1", "accepted", live=NAMES[:2], mean=mean)
    assert len(checks.wrong) == 1


def test_one_update_in_two_sums_is_wrong() -> None:
    checks = make_checks()
    first = contribute(checks)
    second = contribute(checks, session="cd", salts=(5, 0, 7))
    tell(checks, "site0", "accepted", live=NAMES, mean=first)
    assert not checks.wrong
    tell(checks, "site0", "accepted", session="cd", live=NAMES, mean=second)
    assert len(checks.wrong) == 1
    assert "('site1', 0, 0)" in checks.wrong[0]


def test_an_update_is_open_where_enough_shares_went_whether_or_not_a_sum_was_accepted() -> None:
    checks = make_checks()
    contribute(checks)
    second = contribute(checks, session="cd", salts=(0, 8, 9))
    for sender in ("site1", "site2"):
        tell(checks, sender, "share", receiver=0, sha=sender)
    tell(checks, "site0", "accepted", session="cd", live=NAMES, mean=second)
    assert not checks.wrong, "the only one who could open it is the one whose update it is"
    for sender in ("site0", "site1"):
        tell(checks, sender, "share", receiver=2, sha=sender)
    assert len(checks.wrong) == 1
    assert "('site0', 0, 0)" in checks.wrong[0]


def test_two_share_frames_of_one_attempt_for_one_receiver_are_counted() -> None:
    checks = make_checks()
    contribute(checks)
    for digest in ("aa", "aa", "bb"):
        tell(checks, "site0", "share", receiver=1, sha=digest)
    tell(checks, "site0", "share", receiver=2, sha="cc")
    assert len(checks.double_share) == 1


@pytest.mark.parametrize("what", ["drift", "evidence", "failed"])
def test_what_no_honest_party_causes_is_wrong(what: str) -> None:
    checks = make_checks()
    checks.take("site0", {"what": what, "round": 0, "peer": "site1"})
    assert len(checks.wrong) == 1


def test_real_processes_sum_through_a_fault_and_end(tmp_path: Path) -> None:
    """The kit itself, for one round; `make test-faults` is for more."""
    program = Path(__file__).with_name("run.py")
    command = [sys.executable, str(program), "--rounds", "1", "--seed", "3", "--lanes", "1", "--size", "5000"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path)], capture_output=True, text=True, timeout=900, check=False
    )
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 0, done.stdout + done.stderr
    assert last.startswith("rounds=1 exact=")
    assert "wrong=0 hung=0 double_share=0 faults={" in last
    assert not list(tmp_path.iterdir()), "a clean run leaves nothing"


def test_an_audit_line_is_whole_whatever_the_message(tmp_path: Path) -> None:
    """A pipe takes lines of up to 4096 bytes at once."""
    here = Path(__file__).parent
    code = "import paths, light_party, sys; light_party.Audit(1)('refused', reason='\\u00e4' * 9000)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=here, timeout=900, check=True)
    line = json.loads(done.stdout)
    assert len(done.stdout) <= 4096
    assert line["what"] == "refused"

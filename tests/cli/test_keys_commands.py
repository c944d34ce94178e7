"""`pppml keys` and `pppml roster`: from nothing to a file that all sites have signed, and refusals on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_study

from pppml_fast.experiment.config_file import load_config
from pppml_fast.experiment.study import prepare
from pppml_fast.site.federation_file import FederationFile
from pppml_fast.site.keys import SiteKeys

NAMES = ("north", "east", "south")


def check_refused(outcome: Any, words: str) -> None:
    assert outcome.code == 2, outcome
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("pppml: error: "), outcome.err
    assert words in lines[0], lines[0]


@pytest.fixture
def nodes(pppml: Any, tmp_path: Path) -> Path:
    """A folder with three hospitals' keys and a coordinator's, signed by a trial authority."""
    for name in (*NAMES, "hub"):
        made = pppml("keys", "init", name, "--folder", tmp_path / name, "--authority", tmp_path / "ca")
        assert made.code == 0, made.err
    return tmp_path


def make(pppml: Any, nodes: Path, config: Path | str, *more: str | Path) -> Any:
    addresses = [part for name in (*NAMES, "hub") for part in ("--address", f"{name}={name}.example:7443")]
    star = "--relay" in more
    cards = [nodes / name for name in NAMES]
    given = addresses if star else addresses[:-2]
    return pppml("roster", "make", *cards, "--config", config, "--out", nodes / "federation.json", *given, *more)


# --- keys ------------------------------------------------------------------------------------------------------------


def test_init_with_a_trial_authority_leaves_a_node_that_can_start(pppml: Any, tmp_path: Path) -> None:
    folder = tmp_path / "north"
    options = ("--folder", folder, "--address", "north.example:7443", "--authority", tmp_path / "ca", "--days", "30")
    made = pppml("keys", "init", "north", *options)
    assert made.code == 0 and made.err == ""
    keys = SiteKeys.load(folder, need_certificate=True)
    assert keys.identity.public.hex() in made.out and "valid until" in made.out
    shown = json.loads(pppml("keys", "show", "--folder", folder, "--json").out)
    assert shown["name"] == "north" and shown["address"] == "north.example:7443"
    assert shown["fingerprint"].replace(" ", "") + ".pppml" == shown["tls_name"]
    assert "BEGIN" not in made.out + json.dumps(shown)
    check_refused(pppml("keys", "init", "north", *options), "never overwritten")


def test_a_request_signed_elsewhere_is_installed(pppml: Any, tmp_path: Path) -> None:
    folder, out, ca = tmp_path / "north", tmp_path / "out", tmp_path / "ca"
    made = pppml("keys", "init", "north", "--folder", folder)
    assert made.code == 0 and "pppml keys install" in made.out and "dials out only" in made.out
    assert "none yet" in pppml("keys", "show", "--folder", folder).out
    for request in (folder / "card.json", folder / "tls.csr", folder):
        issued = pppml("keys", "issue", request, "--authority", ca, "--out", out)
        assert issued.code == 0, issued.err
    assert sorted(path.name for path in out.iterdir()) == ["authorities.pem", "north.crt"]
    bundle = ("--authorities", out / "authorities.pem")
    check_refused(pppml("keys", "install", "--folder", folder, "--certificate", out / "north.crt"), "authorities.pem")
    done = pppml("keys", "install", "--folder", folder, "--certificate", out / "north.crt", *bundle)
    assert done.code == 0 and "valid until" in done.out
    again = pppml("keys", "install", "--folder", folder, "--certificate", out / "north.crt")
    assert again.code == 0


def test_renewal(pppml: Any, nodes: Path) -> None:
    new = nodes / "north-2027"
    done = pppml("keys", "renew", "--folder", nodes / "north", "--out", new, "--authority", nodes / "ca")
    assert done.code == 0 and "valid until" in done.out
    assert SiteKeys.load(new).identity.public == SiteKeys.load(nodes / "north").identity.public
    check_refused(pppml("keys", "renew", "--folder", nodes / "north", "--out", nodes / "east"), "never overwritten")


def test_bad_keys_are_one_line(pppml: Any, nodes: Path) -> None:
    folder = nodes / "north"
    (folder / "identity.key").chmod(0o644)
    check_refused(pppml("keys", "show", "--folder", folder), "has mode 0644")
    check_refused(pppml("keys", "show", "--folder", nodes / "none"), "No such file")
    check_refused(pppml("keys", "init", "a", "--folder", nodes / "a", "--address", "a"), "not host:port")
    check_refused(pppml("keys", "init", "", "--folder", nodes / "a"), "printable characters")
    check_refused(pppml("keys", "issue", nodes / "none", "--authority", nodes / "ca", "--out", nodes), "No such file")
    other = nodes / "east" / "tls.crt"
    check_refused(pppml("keys", "install", "--folder", nodes / "south", "--certificate", other), "another key")
    assert not (nodes / "a").exists()


# --- roster ----------------------------------------------------------------------------------------------------------


def test_from_nothing_to_a_file_that_all_have_signed(pppml: Any, nodes: Path, config: Path) -> None:
    made = make(pppml, nodes, config)
    assert made.code == 0, made.err
    file = nodes / "federation.json"
    for words in ("north.example:7443", "dials out", "192 classical, 128 quantum", "exact bits", "accepted: sums of 3"):
        assert (words in made.out) is (words != "dials out"), words
    check_refused(pppml("roster", "check", file), "not signed by north, east, south")
    for name in NAMES:
        signed = pppml("roster", "sign", file, "--folder", nodes / name)
        assert signed.code == 0 and f"{name} has signed" in signed.out
    for options in ((), ("--folder", nodes / "east")):
        checked = pppml("roster", "check", file, *options)
        assert checked.code == 0 and "ok: roster" in checked.out
    shown = json.loads(pppml("roster", "show", file, "--json").out)
    assert [row["signed"] for row in shown["members"]] == [True] * 3
    fingerprints = [
        json.loads(pppml("keys", "show", "--folder", nodes / n, "--json").out)["fingerprint"] for n in NAMES
    ]
    assert [row["fingerprint"] for row in shown["members"]] == fingerprints
    check_refused(make(pppml, nodes, config), "never overwritten")


def test_the_roster_is_that_of_the_experiment_in_one_process(pppml: Any, nodes: Path, config: Path) -> None:
    """Layout and parameters come from the configuration alone, without the data that `prepare` loads."""
    assert make(pppml, nodes, config, "--set", "data.path=nowhere.npz").code == 0
    file = FederationFile.load(nodes / "federation.json")
    study = prepare(load_config(config))
    assert file.layout == study.layout and file.params == study.params
    assert file.roster.weights == study.weights


def test_copies_signed_apart_are_merged(pppml: Any, nodes: Path, config: Path) -> None:
    make(pppml, nodes, config)
    file, copies = nodes / "federation.json", []
    for name in NAMES:
        copies.append(nodes / f"{name}.json")
        assert pppml("roster", "sign", file, "--folder", nodes / name, "--out", copies[-1]).code == 0
    half = pppml("roster", "merge", *copies[:2], "--out", file)
    assert half.code == 0 and "still to sign: south" in half.out
    whole = pppml("roster", "merge", file, copies[2], "--out", file)
    assert whole.code == 0 and "signed by every member" in whole.out
    assert pppml("roster", "check", file).code == 0
    other = nodes / "other.json"
    assert make(pppml, nodes, config, "--out", other, "--set", "aggregation.clip=2.0").code == 0
    check_refused(pppml("roster", "merge", file, other, "--out", file), "different rosters")


def test_a_star_has_a_coordinator_and_members_that_dial_out(pppml: Any, nodes: Path, config: Path) -> None:
    check_refused(make(pppml, nodes, config, "--topology", "star"), "needs --relay")
    check_refused(make(pppml, nodes, config, "--relay", nodes / "hub"), "takes none")
    cards = [nodes / name for name in NAMES]
    star = ("--config", config, "--topology", "star", "--relay", nodes / "hub", "--out", nodes / "star.json")
    check_refused(pppml("roster", "make", *cards, *star), "no address of hub")
    made = pppml("roster", "make", *cards, *star, "--address", "hub=hub.example:7443")
    assert made.code == 0 and "dials out" in made.out and "relay" in made.out and "sum check on" in made.out
    file = FederationFile.load(nodes / "star.json")
    assert dict(file.addresses) == {"hub": "hub.example:7443"}
    assert file.roster.relay is not None and file.roster.relay.name == "hub"


def test_weights(pppml: Any, nodes: Path, config: Path) -> None:
    def weights(*values: str) -> list[str]:
        return [part for value in values for part in ("--weight", value)]

    cases = ("--set", "aggregation.weights=cases")
    check_refused(make(pppml, nodes, config, *cases), "give --weight NAME=CASES for each of north, east, south")
    for given, words in (
        (("north=1", "east=1"), "differ in 'south'"),
        (("north=1", "east=1", "south=1", "west=1"), "differ in 'west'"),
        (("north=1", "east=0", "south=1"), "no number above 0"),
        (("north=1", "east=nan", "south=1"), "no number above 0"),
        (("north=1", "north=2"), "once per name"),
        (("north",), "is not NAME=VALUE"),
        (("north=8", "east=1", "south=1"), "'north' holds 0.800 of the weight; the limit is 0.5"),
    ):
        check_refused(make(pppml, nodes, config, *weights(*given)), words)
    assert not (nodes / "federation.json").exists()
    assert make(pppml, nodes, config, *cases, *weights("north=40", "east=40", "south=20")).code == 0
    file = FederationFile.load(nodes / "federation.json")
    assert list(file.roster.weights.values()) == pytest.approx([0.4, 0.4, 0.2])


def test_a_site_refuses_what_its_policy_refuses(pppml: Any, nodes: Path, config: Path) -> None:
    make(pppml, nodes, config)
    file, folder = nodes / "federation.json", ("--folder", nodes / "north")
    before = file.read_bytes()
    check_refused(pppml("roster", "sign", file, *folder, "--min-parties", "4"), "under the minimum of 4")
    check_refused(pppml("roster", "sign", file, *folder, "--max-share", "0.3"), "the limit is 0.3")
    check_refused(pppml("roster", "sign", file, "--folder", nodes / "hub"), "'hub' is not in the roster")
    assert file.read_bytes() == before
    assert "REFUSED" in pppml("roster", "show", file, "--max-share", "0.3").out
    impostor = nodes / "impostor"
    pppml("keys", "init", "north", "--folder", impostor, "--authority", nodes / "ca")
    check_refused(pppml("roster", "sign", file, "--folder", impostor), "its own key is")


def test_check_also_looks_at_the_nodes_certificate_and_signature(pppml: Any, nodes: Path, config: Path) -> None:
    make(pppml, nodes, config)
    file = nodes / "federation.json"
    for name in NAMES:
        pppml("roster", "sign", file, "--folder", nodes / name)
    (nodes / "east" / "tls.crt").unlink()
    check_refused(pppml("roster", "check", file, "--folder", nodes / "east"), "has no certificate")
    document = json.loads(file.read_text())
    document["signatures"]["east"] = "0" * 128
    file.write_text(json.dumps(document))
    check_refused(pppml("roster", "check", file), "the roster signature of east is not valid")


def test_too_few_members(pppml: Any, nodes: Path, config: Path) -> None:
    two = ("--config", config, "--out", nodes / "two.json")
    check_refused(pppml("roster", "make", nodes / "north", nodes / "east", *two), "fewer than 3")
    check_refused(pppml("roster", "make", *[nodes / "north"] * 3, *two), "fewer than 3")


def test_names_with_markup_are_shown_as_they_are(pppml: Any, tmp_path: Path, npz: Path) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(tiny_study.toml(npz))
    names = ("[red]north[/red]", "[/]", "south")
    cards = []
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        assert pppml("keys", "init", name, "--folder", folder, "--address", "a:1").code == 0
        cards.append(folder)
    made = pppml("roster", "make", *cards, "--config", config, "--out", tmp_path / "f.json")
    assert made.code == 0 and all(name in made.out for name in names)


def test_keys_need_no_torch_and_help_nothing_heavy(tmp_path: Path) -> None:
    for arguments, heavy in (
        (["roster", "--help"], {"torch", "cryptography", "grpc", "monai", "jinja2"}),
        (["keys", "init", "north", "--folder", str(tmp_path / "north")], {"torch", "monai", "grpc"}),
    ):
        script = (
            "import sys\nfrom pppml_fast.cli import main\n"
            f"try:\n    main({arguments!r})\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
            f"assert not {heavy!r} & set(sys.modules), {heavy!r} & set(sys.modules)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr

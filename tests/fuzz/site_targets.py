"""Fuzz targets of the files that sites exchange: cards and the federation's file.

What is refused is refused by an error of the library, in one line; what is accepted is written again with its meaning.
"""

from __future__ import annotations

import functools
import json

from json_edits import edited
from protocol_targets import LAYOUT, NAMES, identities, sample_roster

import pppml_fast as pf
from pppml_fast.site.card import NodeCard
from pppml_fast.site.federation_file import FederationFile

# The request of `identities()["north"]`, made once: ECDSA signatures differ from process to process.
REQUEST = b"""-----BEGIN CERTIFICATE REQUEST-----
MIIBLjCB1QIBADAQMQ4wDAYDVQQDDAVub3J0aDBZMBMGByqGSM49AgEGCCqGSM49
AwEHA0IABAa1BZJyj5wJbJxnDa5GVSldX/NcVUzLenE/w3yAK3VYlIUC4zOMUHjp
wUOMEfwlJOnHaa89Q4VBmQdhLyJHhEGgYzBhBgkqhkiG9w0BCQ4xVDBSMDEGA1Ud
EQQqMCiCJjNhMWU2MDVlYjgxYjEwN2ZjNDkyMjNjYzVlOWU4ZDgyLnBwcG1sMB0G
A1UdJQQWMBQGCCsGAQUFBwMBBggrBgEFBQcDAjAKBggqhkjOPQQDAgNIADBFAiAd
wpYMVvq0QURIO/ciXVBu3SgVxlbhfmrMphifxdLPsQIhAP8tLJVQSvF0dbx1lkjF
ficx8FGhcnVxnNhI20Yn09hR
-----END CERTIFICATE REQUEST-----
"""


@functools.cache
def federation_file() -> bytes:
    """Three hospitals on a ring; two have signed."""
    addresses = {name: f"{name}.example:7443" for name in NAMES}
    file = FederationFile(sample_roster(), LAYOUT, addresses)
    return file.signed_by(identities()["north"]).signed_by(identities()["east"]).encode()


@functools.cache
def card_file() -> bytes:
    """A node that listens."""
    return NodeCard.create(identities()["north"], "[::1]:7443", REQUEST).encode()


def federation_seeds() -> list[bytes]:
    """The file, and edits of it."""
    return [federation_file(), *(bytes([0, place, place]) for place in range(0, 60, 4))]


def federation(data: bytes) -> None:
    """An accepted file says what it said; after a byte 0 follow edits of a valid one."""
    if data[:1] == b"\0":
        data = edited(json.loads(federation_file()), data[1:])
    try:
        file = FederationFile.parse(data)
    except pf.PppmlError as error:
        assert "\n" not in str(error)
        return
    assert json.loads(file.encode()) == json.loads(data)
    assert FederationFile.parse(file.encode()) == file


def card_seeds() -> list[bytes]:
    """The card, and edits of it."""
    return [card_file(), *(bytes([0, place, place]) for place in range(0, 40, 4))]


def card(data: bytes) -> None:
    """An accepted card says what it said; after a byte 0 follow edits of a valid one."""
    if data[:1] == b"\0":
        data = edited(json.loads(card_file()), data[1:])
    try:
        parsed = NodeCard.parse(data)
    except pf.PppmlError as error:
        assert "\n" not in str(error)
        return
    assert json.loads(parsed.encode()) == json.loads(data)

"""What a handshake that fails leaves at the accepting end: nothing, or where it is asked for a line of gRPC's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("grpc")

# A hub, and a client whose certificate has expired; it ends once the hub has closed the connection.
EXPIRED = """
import contextlib, socket, ssl, sys, tempfile, time
sys.path.insert(0, sys.argv[1])
from certificates import Authority, public_key
from recorder import Recorder
from pppml_fast.transport.grpc_links import GrpcLinks
from pppml_fast.transport.tls_names import tls_name

authority, told = Authority(), []
hub = GrpcLinks("c", b"c" * 16, {"b": public_key("b")}, **authority.issue("c")._asdict(), listen="127.0.0.1:0",
                on_refused=lambda *refusal: told.append(refusal))
hub.start(Recorder())
pem = authority.issue("b", first_day=-5, last_day=-1)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations(cadata=authority.pem.decode())
context.set_alpn_protocols(["h2"])
with tempfile.NamedTemporaryFile() as file:
    file.write(pem.certificate + pem.key)
    file.flush()
    context.load_cert_chain(file.name)
with contextlib.suppress(OSError):
    raw = socket.create_connection(("127.0.0.1", hub.port), timeout=60)
    with context.wrap_socket(raw, server_hostname=tls_name(public_key("c"))) as tls:
        assert tls.recv(1) == b""
hub.stop()
print(told)
"""


@pytest.mark.parametrize("asked", [False, True])
def test_an_expired_certificate_is_told_where_grpc_is_asked(asked: bool) -> None:
    """As docs/operations.md says; nothing comes through to the program itself."""
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    if asked:
        environment["GRPC_VERBOSITY"] = "INFO"
    command = [sys.executable, "-c", EXPIRED, str(Path(__file__).parent)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment, check=False)
    assert (run.returncode, run.stdout) == (0, "[]\n"), run.stderr
    assert ("Handshake failed" in run.stderr and "certificate has expired" in run.stderr) is asked
    assert asked or run.stderr == ""

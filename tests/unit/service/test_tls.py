"""Each call is judged by the agent's own time, whatever is done to the system's clock."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from keycustody.config import PrincipalSettings, TlsSettings
from keycustody.custody.clock import Clock
from keycustody.custody.identity.judge import Directory
from keycustody.service.tls import TlsFiles
from tests.authority import Authority, replace, uri

BILLING = "spiffe://example.org/billing"


def test_a_clock_that_is_set_back_revives_no_certificate(tmp_path: Path) -> None:
    clients = Authority("Clients")
    certificate, key = Authority("Agents").server().write(tmp_path, "agent")
    replace(tmp_path / "clients.pem", clients.pem)
    tls = TlsSettings(
        listen=("127.0.0.1:1",),
        certificate=certificate,
        key=key,
        client_ca=tmp_path / "clients.pem",
    )
    issued = clients.issue(uri(BILLING), end=timedelta(hours=1))
    shown = {"ssl_tls_version": [b"TLSv1.3"], "x509_pem_cert": [issued.pem]}
    call: Any = SimpleNamespace(auth_context=lambda: shown)
    now = datetime.now(UTC).timestamp()
    wall, ticks = [now], [0.0]
    clock = Clock(wall=lambda: wall[0], monotonic=lambda: ticks[0])
    files = TlsFiles(tls, clock.utc)
    directory = Directory({"billing": PrincipalSettings(identities=(BILLING,))})

    def who() -> str:
        return files.identify(call, directory).principal

    assert who() == "billing"
    wall[0], ticks[0] = now + 7200, 7200
    assert who() == ""
    wall[0], ticks[0] = now, 7300
    assert who() == ""

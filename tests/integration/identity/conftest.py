"""An agent that serves TLS on TCP and on a Unix socket, with an authority of the tests."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from tests.authority import Authority, Issued, replace, uri
from tests.integration.command import FEW_KEYS, Command, prepare, running

BILLING = "spiffe://example.org/billing"
SETTINGS = """
[principals.billing]
socket = false
identities = ["{billing}"]
[principals.web]
socket = false
identities = ["dns:web.example.org"]
[[grants]]
principals = ["billing", "web"]
keys = ["*"]
operations = ["read", "sign"]
[metrics]
socket = "../var/run/metrics/metrics.sock"
[tls]
listen = ["127.0.0.1:{port}", "unix:../var/tls.sock"]
certificate = "../tls/agent.pem"
key = "../tls/agent.key"
client_ca = "../tls/clients.pem"
"""


@dataclass(frozen=True)
class TlsAgent:
    """A running agent with TLS, its files, and the authorities behind them."""

    command: Command
    port: int
    authority: Authority
    clients: Authority

    @property
    def files(self) -> Path:
        """The folder of the files that `[tls]` names."""
        return self.command.folder / "tls"

    @property
    def address(self) -> str:
        """Where it listens on TCP."""
        return f"localhost:{self.port}"

    @property
    def socket(self) -> Path:
        """Its Unix socket with TLS."""
        return self.command.folder / "var" / "tls.sock"

    def billing(self) -> Issued:
        """A certificate of principal `billing`."""
        return self.clients.issue(uri(BILLING))

    def trust(self, *authorities: Authority) -> None:
        """Have the agent trust exactly these."""
        replace(self.files / "clients.pem", b"".join(one.pem for one in authorities))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def prepared(folder: Path, more: str = "") -> TlsAgent:
    """An agent with TLS that was not started yet."""
    made = prepare(folder, "")
    agent = TlsAgent(made, free_port(), Authority("Agents"), Authority("Clients"))
    settings = FEW_KEYS + SETTINGS.format(billing=BILLING, port=agent.port) + more
    made.config.write_text(settings)
    agent.files.mkdir(mode=0o700)
    agent.authority.server().write(agent.files, "agent")
    agent.trust(agent.clients)
    made.ok("token", "init", "--config", made.config)
    made.ok("keys", "apply", "--config", made.config)
    return agent


@pytest.fixture(scope="session")
def tls_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsAgent]:
    """One that tests share: put back what you change."""
    agent = prepared(tmp_path_factory.mktemp("tls"))
    with running(agent.command):
        yield agent


def name(value: str) -> x509.GeneralName:
    """A DNS name as alternative name."""
    return x509.DNSName(value)

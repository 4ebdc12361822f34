"""Files that cannot be used stop the start; lists and mappings reach living connections."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from keycustody.config import load
from keycustody.custody.identity.certificates import expiries
from tests.authority import DAY, SERVER, Authority, replace, uri
from tests.integration.agent.raw import send
from tests.integration.command import running, set_ahead
from tests.integration.identity.conftest import BILLING, TlsAgent, name, prepared
from tests.integration.identity.test_callers import LIST, channel, refusal
from tests.integration.scraping import eventually


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> TlsAgent:
    """An agent with revocation lists, which each test starts itself."""
    agent = prepared(tmp_path_factory.mktemp("files"), more='crl = "../tls/clients.crl"\n')
    replace(agent.files / "clients.crl", agent.clients.crl())
    return agent


@pytest.fixture
def put_back(own: TlsAgent) -> Iterator[TlsAgent]:
    """The agent, whose files are as they were afterwards."""
    yield own
    own.authority.server().write(own.files, "agent")
    own.trust(own.clients)
    replace(own.files / "clients.crl", own.clients.crl())


def _open_key(agent: TlsAgent) -> None:
    (agent.files / "agent.key").chmod(0o640)


BROKEN: dict[str, tuple[str, str, Callable[[TlsAgent], object]]] = {
    "no-certificate": (
        "CERTIFICATE_UNUSABLE",
        "cannot be read",
        lambda agent: (agent.files / "agent.pem").unlink(),
    ),
    "expired": (
        "CERTIFICATE_UNUSABLE",
        "which is not now",
        lambda agent: agent.authority.server(end=-DAY / 2).write(agent.files, "agent"),
    ),
    "no-name": (
        "CERTIFICATE_UNUSABLE",
        "no DNS name",
        lambda agent: agent.authority.issue(usage=SERVER).write(agent.files, "agent"),
    ),
    "for-clients": (
        "CERTIFICATE_UNUSABLE",
        "not for servers",
        lambda agent: agent.authority.issue(name("localhost")).write(agent.files, "agent"),
    ),
    "another-key": (
        "CERTIFICATE_UNUSABLE",
        "not the key of",
        lambda agent: replace(agent.files / "agent.key", agent.authority.server().key_pem),
    ),
    "open-key": ("INSECURE_PERMISSIONS", "chmod 600", _open_key),
    "ca-is-none": (
        "CERTIFICATE_UNUSABLE",
        "not an authority's",
        lambda agent: replace(agent.files / "clients.pem", agent.billing().pem),
    ),
    "no-list": (
        "CERTIFICATE_UNUSABLE",
        "no revocation list",
        lambda agent: replace(agent.files / "clients.crl", agent.clients.pem),
    ),
}


@pytest.mark.parametrize("which", BROKEN)
def test_what_cannot_be_used_stops_the_start(put_back: TlsAgent, which: str) -> None:
    code, why, spoil = BROKEN[which]
    spoil(put_back)
    done = put_back.command("serve", "--config", put_back.command.config)
    last = done.stderr.decode().splitlines()[-1]
    assert why in last
    assert last.endswith(f"[{code}]")
    assert done.returncode == 1


def test_when_things_end(put_back: TlsAgent) -> None:
    tls = load(put_back.command.config).tls
    assert tls is not None
    found = {one.setting: one for one in expiries(tls)}
    assert set(found) == {"tls.certificate", "tls.client_ca", "tls.crl"}
    assert found["tls.crl"].path == put_back.files / "clients.crl"


def test_metrics_and_status_tell_of_a_running_agents_files(put_back: TlsAgent) -> None:
    tls = load(put_back.command.config).tls
    assert tls is not None
    name = "keycustody_certificate_expiry_seconds"
    ends = {
        (one.setting, one.subject): float(int(one.not_after.timestamp())) for one in expiries(tls)
    }
    with running(put_back.command):
        found = eventually(put_back.command, lambda found: len(found[name].samples) == len(ends))
        assert {
            (sample.labels["setting"], sample.labels["subject"]): sample.value
            for sample in found[name].samples
        } == ends
        lifetimes = {one.setting: one.not_after - one.not_before for one in expiries(tls)}
        for sample in found["keycustody_certificate_start_seconds"].samples:
            end = ends[sample.labels["setting"], sample.labels["subject"]]
            lifetime = lifetimes[sample.labels["setting"]].total_seconds()
            assert sample.value == pytest.approx(end - lifetime, abs=1)

        assert b"agent.pem" not in put_back.command.ok("status")
        put_back.authority.server(end=-DAY / 2).write(put_back.files, "agent")
        assert re.search(
            rb"finding +.*agent\.pem: .*which is not now", put_back.command.ok("status")
        )
        put_back.authority.server().write(put_back.files, "agent")
        assert b"agent.pem" not in put_back.command.ok("status")


@pytest.mark.slow
def test_lists_and_mappings_reach_living_connections(put_back: TlsAgent) -> None:
    agent, issued = put_back, put_back.billing()
    other = put_back.billing()

    def put(crl: bytes) -> None:
        replace(agent.files / "clients.crl", crl)

    with running(agent.command), channel(agent, issued) as opened, channel(agent, other) as second:
        assert send(opened, LIST, b"")
        assert send(second, LIST, b"")
        put(agent.clients.crl(issued))
        assert refusal(opened)[1] == "UNAUTHENTICATED"
        assert send(second, LIST, b"")
        for useless in (
            agent.clients.crl(end=-DAY),
            agent.clients.crl(signed_by=Authority()),
            Authority("Other").crl(),
        ):
            put(useless)
            assert refusal(second)[1] == "UNAUTHENTICATED"
        put(agent.clients.crl())
        assert send(opened, LIST, b"")

        settings = agent.command.config.read_text()
        agent.command.config.write_text(settings.replace("org/billing", "org/renamed"))
        agent.command.ok("reload")
        assert refusal(opened)[1] == "UNAUTHENTICATED"
        agent.command.config.write_text(settings)
        agent.command.ok("reload")
        assert send(opened, LIST, b"")


def test_a_clock_that_is_set_back_revives_no_certificate(put_back: TlsAgent) -> None:
    """For gRPC's handshake, which asks the system's clock, the certificate holds still."""
    agent = put_back
    soon = agent.clients.issue(uri(BILLING), end=timedelta(minutes=30))
    with running(agent.command), channel(agent, soon) as opened:
        assert send(opened, LIST, b"")
    set_ahead(agent.command, hours=1)
    with running(agent.command):
        with channel(agent, soon) as opened:
            assert refusal(opened)[1] == "UNAUTHENTICATED"
        with channel(agent, agent.billing()) as opened:
            assert send(opened, LIST, b"")

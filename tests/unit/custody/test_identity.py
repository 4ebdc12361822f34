"""Who shows a certificate, now: tables of what is nobody, and of when an answer changes."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from keycustody.config import PrincipalSettings
from keycustody.custody.identity.judge import Directory, Judge, Known, Shown
from keycustody.custody.identity.trust import Trust
from tests.authority import CLIENT, DAY, SERVER, Authority, Issued, uri

BILLING = "spiffe://example.org/billing"
IDENTITIES = {
    "billing": (BILLING,),
    "web": ("dns:web.example.org", "ip:2001:db8::1"),
    "mail": ("email:Robot@example.org", "uri:https://example.org/robot"),
}
AUTHORITY, OTHER, TWIN = Authority(), Authority("Another"), Authority()
MIDDLE = Authority("Middle", above=AUTHORITY)
DIRECTORY = Directory(
    {name: PrincipalSettings(identities=found) for name, found in IDENTITIES.items()}
)
NOW = datetime.now(UTC)


def trust(*crls: bytes, authorities: tuple[Authority, ...] = (AUTHORITY,)) -> Trust:
    lists = tuple(x509.load_pem_x509_crl(crl) for crl in crls) if crls else None
    return Trust(b"", tuple(one.certificate for one in authorities), lists)


def shown(issued: Issued, version: str = "TLSv1.3") -> Shown:
    above = b"".join(one.public_bytes(Encoding.PEM) for one in issued.above)
    return Shown(version, issued.certificate.public_bytes(Encoding.PEM), above)


def judged(issued: Issued, by: Trust | None = None, version: str = "TLSv1.3") -> Known:
    return Judge().judge(shown(issued, version), by or trust(), DIRECTORY, NOW)


def dns(name: str) -> x509.GeneralName:
    return x509.DNSName(name)


@pytest.mark.parametrize(
    ("principal", "via", "names"),
    [
        ("billing", BILLING, [uri(BILLING)]),
        ("billing", BILLING, [uri(BILLING), dns("unmapped.example.org")]),
        ("web", "dns:web.example.org", [dns("WEB.example.ORG")]),
        ("web", "ip:2001:db8::1", [x509.IPAddress(ip_address("2001:DB8:0::1"))]),
        ("mail", "email:Robot@example.org", [x509.RFC822Name("Robot@EXAMPLE.org")]),
        ("mail", "uri:https://example.org/robot", [uri("https://example.org/robot")]),
        # Two of one principal's names are no contradiction.
        ("web", "dns:web.example.org", [dns("web.example.org"), dns("x.example.org")]),
    ],
)
def test_somebody(principal: str, via: str, names: list[x509.GeneralName]) -> None:
    assert judged(AUTHORITY.issue(*names)) == Known(principal, f"tls:{via}")


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([], id="common-name-alone"),
        pytest.param([dns(BILLING)], id="spiffe-id-as-dns"),
        pytest.param([x509.RFC822Name("billing@example.org")], id="email-nobody-has"),
        pytest.param([uri(BILLING), uri("https://example.org/robot")], id="two-uris"),
        pytest.param([uri(BILLING), uri("spiffe://example.org/web")], id="two-spiffe-ids"),
        pytest.param([uri(BILLING), dns("web.example.org")], id="two-principals"),
        pytest.param([uri("spiffe://example.org/Billing")], id="path-in-another-case"),
        pytest.param([uri("spiffe://EXAMPLE.org/billing")], id="domain-in-another-case"),
        pytest.param([uri(BILLING + "/")], id="slash-behind"),
        pytest.param([uri(BILLING + "/x")], id="longer-path"),
        pytest.param([uri("spiffe://example.org/x/../billing")], id="dots"),
        pytest.param([dns("*.example.org")], id="wildcard"),
        pytest.param([dns("web.example.org.")], id="dot-behind"),
        pytest.param([uri("dns:web.example.org")], id="type-in-a-uri"),
        pytest.param([dns("2001:db8::1")], id="address-as-dns"),
        pytest.param([x509.RFC822Name("robot@example.org")], id="mailbox-in-another-case"),
    ],
)
def test_nobody_by_its_names(names: list[x509.GeneralName]) -> None:
    known = judged(AUTHORITY.issue(*names, common_name=BILLING))
    assert known.principal == ""
    assert known.refusal


@pytest.mark.parametrize(
    ("issued", "why"),
    [
        pytest.param(OTHER.issue(uri(BILLING)), "authority", id="another-authority"),
        pytest.param(TWIN.issue(uri(BILLING)), "authority", id="authority-of-the-same-name"),
        pytest.param(AUTHORITY.issue(uri(BILLING), end=-DAY / 2), "expired", id="expired"),
        pytest.param(AUTHORITY.issue(uri(BILLING), start=DAY), "not valid yet", id="not-yet"),
        pytest.param(AUTHORITY.issue(uri(BILLING), usage=SERVER), "clientAuth", id="servers"),
        pytest.param(AUTHORITY.issue(uri(BILLING), usage=()), "clientAuth", id="any-use"),
        pytest.param(
            AUTHORITY.issue(uri(BILLING), authority=True), "for clients", id="an-authority-itself"
        ),
        pytest.param(
            Issued(MIDDLE.issue(uri(BILLING)).certificate, MIDDLE.key), "authority", id="a-gap"
        ),
    ],
)
def test_nobody_by_its_certificate(issued: Issued, why: str) -> None:
    known = judged(issued)
    assert (known.principal, known.via[:11]) == ("", "tls:sha256:")
    assert why in known.refusal


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.1", ""])
def test_only_tls_1_3(version: str) -> None:
    assert "TLS 1.3" in judged(AUTHORITY.issue(uri(BILLING)), version=version).refusal


@pytest.mark.parametrize(
    "certificate", [b"", b"x", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"]
)
def test_no_certificate(certificate: bytes) -> None:
    known = Judge().judge(Shown("TLSv1.3", certificate, b""), trust(), DIRECTORY, NOW)
    assert known.principal == ""


def test_an_authority_between() -> None:
    assert judged(MIDDLE.issue(uri(BILLING))).principal == "billing"
    below = MIDDLE.issue(uri(BILLING))
    alone = trust(authorities=(MIDDLE,))
    assert judged(Issued(below.certificate, below.key), alone).principal == "billing"


MINE, HERS = AUTHORITY.issue(uri(BILLING)), AUTHORITY.issue(uri(BILLING))
BELOW = MIDDLE.issue(uri(BILLING))


@pytest.mark.parametrize(
    ("crls", "issued", "why"),
    [
        pytest.param([AUTHORITY.crl()], MINE, "", id="empty-list"),
        pytest.param([AUTHORITY.crl(HERS)], MINE, "", id="another-revoked"),
        pytest.param([AUTHORITY.crl(MINE)], MINE, "revoked", id="revoked"),
        pytest.param([AUTHORITY.crl(end=-DAY)], MINE, "no current", id="ended-list"),
        pytest.param([OTHER.crl()], MINE, "no current", id="list-of-another"),
        pytest.param([AUTHORITY.crl(signed_by=OTHER)], MINE, "no current", id="forged-list"),
        pytest.param([TWIN.crl()], MINE, "no current", id="list-of-a-twin"),
        pytest.param([AUTHORITY.crl()], BELOW, "no current", id="none-of-the-middle"),
        pytest.param([MIDDLE.crl()], BELOW, "no current", id="none-of-the-top"),
        pytest.param([AUTHORITY.crl(), MIDDLE.crl()], BELOW, "", id="both"),
        pytest.param(
            [AUTHORITY.crl(MIDDLE.certificate), MIDDLE.crl()], BELOW, "revoked", id="middle-revoked"
        ),
    ],
)
def test_revocation(crls: list[bytes], issued: Issued, why: str) -> None:
    known = judged(issued, trust(*crls))
    assert known.principal == ("" if why else "billing")
    assert why in known.refusal


def test_an_answer_ends_with_what_it_rests_on() -> None:
    # Of this moment, since certificates are: the module was imported long before.
    judge, by, now = Judge(), trust(AUTHORITY.crl(end=DAY)), datetime.now(UTC)
    short = shown(AUTHORITY.issue(uri(BILLING), end=timedelta(hours=1)))
    long = shown(AUTHORITY.issue(uri(BILLING)))

    def who(asked: Shown, after: timedelta, by: Trust = by) -> str:
        return judge.judge(asked, by, DIRECTORY, now + after).principal

    assert (who(short, 0 * DAY), who(long, 0 * DAY)) == ("billing", "billing")
    assert who(short, timedelta(minutes=61)) == ""  # the certificate ended
    assert who(long, timedelta(hours=25)) == ""  # the list ended
    assert who(short, -2 * DAY) == ""  # the clock was set back
    assert who(long, 0 * DAY) == "billing"
    assert who(long, 0 * DAY, trust(authorities=(OTHER,))) == ""
    assert judge.judge(long, by, Directory({}), now).principal == ""


def test_a_refusal_ends_soon() -> None:
    judge, by, now = Judge(), trust(), datetime.now(UTC)
    early = shown(AUTHORITY.issue(uri(BILLING), start=timedelta(seconds=10)))
    assert judge.judge(early, by, DIRECTORY, now).principal == ""
    assert judge.judge(early, by, DIRECTORY, now + timedelta(seconds=30)).principal == "billing"


def test_memory_is_bounded() -> None:
    judge, by = Judge(), trust()
    for number in range(3000):
        judge.judge(Shown("TLSv1.3", b"%d" % number, b""), by, DIRECTORY, NOW)
    assert len(judge._answers) <= 1024


def test_usages_may_be_more() -> None:
    assert judged(AUTHORITY.issue(uri(BILLING), usage=CLIENT + SERVER)).principal == "billing"

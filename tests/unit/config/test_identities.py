"""Identities: one form each, and settings that leave no doubt whose one is."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycustody.config.identities import canonical
from tests.unit.config.test_settings import GOOD, findings

TLS = """
[tls]
listen = [{listen}]
certificate = "a"
key = "b"
client_ca = "c"
"""


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("spiffe://example.org/a/B", "spiffe://example.org/a/B"),
        ("dns:Web.Example.ORG", "dns:web.example.org"),
        ("email:Me.Too@Example.ORG", "email:Me.Too@example.org"),
        ("ip:127.0.0.1", "ip:127.0.0.1"),
        ("ip:2001:DB8:0:0::1", "ip:2001:db8::1"),
        ("uri:https://Example.org/x?y#z", "uri:https://Example.org/x?y#z"),
    ],
)
def test_one_form(written: str, form: str) -> None:
    assert canonical(written) == canonical(form) == form


@pytest.mark.parametrize(
    "written",
    [
        "", "billing", "cn:billing", "spiffe:", "spiffe://", "spiffe://example.org",
        "spiffe://example.org/", "spiffe://Example.org/a", "spiffe://example.org/a//b",
        "spiffe://example.org/../a", "spiffe://example.org/a?b", "spiffe://example.org:1/a",
        "spiffe://u@example.org/a", "SPIFFE://example.org/a", "spiffe://example.org/" + "a" * 2048,
        "dns:", "dns:*.example.org", "dns:example.org.", "dns:a b", "dns:ü.example.org",
        "dns:a..b", "email:example.org", "email:@example.org", "email:a@", "email:\"a b\"@c.d",
        "ip:", "ip:127.0.0.1/8", "ip:localhost", "uri:nothing", "uri:spiffe://example.org/a",
        "uri:https://a b", "dns:example.org\n",
    ],
)  # fmt: skip
def test_no_identity(written: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        canonical(written)


@given(st.text() | st.sampled_from(["spiffe://", "dns:", "email:", "ip:", "uri:"]).flatmap(
    lambda kind: st.text(max_size=40).map(lambda rest: kind + rest)
))  # fmt: skip
def test_a_form_is_its_own(text: str) -> None:
    try:
        form = canonical(text)
    except ValueError:
        return
    assert canonical(form) == form


def test_one_identity_of_two(tmp_path: Path) -> None:
    more = '[principals.a]\nidentities = ["dns:x"]\n[principals.b]\nidentities = ["dns:X"]\n'
    assert findings(tmp_path, GOOD + more) == [
        "principals.b.identities: dns:x is principal 'a' already."
    ]


def test_a_principal_that_nobody_can_be(tmp_path: Path) -> None:
    found = findings(tmp_path, GOOD + "[principals.a]\nsocket = false\n")
    assert found == ["principals.a: without a socket, it needs identities and [tls]."]


@pytest.mark.parametrize(
    "listen",
    ['"7443"', '"localhost"', '"localhost:0"', '"localhost:70000"', '"::1:7443"', '"[x]:1"',
     '"unix:"', '"http://a:1"', '"localhost:1", "localhost:1"', '"unix:/run/k/demo/agent.sock"',
     '"unix:/' + "a" * 120 + '"', ""],
)  # fmt: skip
def test_nowhere_to_listen(tmp_path: Path, listen: str) -> None:
    found = findings(tmp_path, GOOD + TLS.format(listen=listen))
    assert all(finding.startswith("tls.listen") for finding in found)


def test_tcp_needs_mutual_tls(tmp_path: Path) -> None:
    """No setting serves TCP without authorities for callers."""
    text = TLS.format(listen='"localhost:7443"').replace('client_ca = "c"\n', "")
    assert findings(tmp_path, GOOD + text) == ["tls.client_ca: is missing."]

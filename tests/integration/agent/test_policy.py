"""A running agent under a policy: what it refuses, what it records, and what it tells operators."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

import keycustody as client
from keycustody.errors import PolicyViolation
from tests.integration.command import FEW_KEYS, Command, prepare, refused, running, soon

_SETTINGS = (
    FEW_KEYS.replace("[agent]", 'policy = "policy.toml"\n[agent]', 1)
    .replace(
        "[[grants]]",
        """
[keys.lapsed]
purpose = "sign"
algorithm = "EC_P384"
[keys.excepted]
purpose = "sign"
algorithm = "EC_P384"
[keys.digests]
purpose = "sign"
algorithm = "EC_P256"
prehashed = true
[keys.agreed]
purpose = "agree"
algorithm = "EC_P256"
[keys.wrapping]
purpose = "wrap"
lease = { seconds = 600 }
[[grants]]
""",
        1,
    )
    .replace('"read", "sign"', '"read", "sign", "agree", "generate", "unwrap"')
)

_POLICY = """
require_rotation = false
[sign]
keys = ["EC_P256"]
algorithms = ["ECDSA_SHA_256", "ECDSA_SHA_384"]
lifetime_days = 100
[wrap]
keys = ["AES_256_HMAC_SHA_256"]
lifetime_days = 100
lease_seconds = 300
[[exceptions]]
key = "lapsed"
rule = "key-algorithm"
reason = "It was."
approver = "tests"
expires = {lapsed}
[[exceptions]]
key = "excepted"
rule = "key-algorithm"
reason = "It is."
approver = "tests"
expires = {soon}
"""


@pytest.fixture(scope="module")
def under_policy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    folder = tmp_path_factory.mktemp("p")
    command = prepare(folder)
    # Before there was a policy, which would not have had all of them made.
    command.config.write_text(_SETTINGS.replace("policy =", "# policy =", 1))
    lapsed = soon() - timedelta(days=10)
    policy = _POLICY.format(lapsed=lapsed, soon=soon())
    command.config.with_name("policy.toml").write_text(policy)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    command.config.write_text(_SETTINGS)
    with running(command):
        yield command


def _sign(agent: client.Agent, name: str) -> bytes:
    key = agent.private_key(name)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.sign(b"message", ec.ECDSA(SHA256()))


def test_what_the_policy_permits_signs(under_policy: Command) -> None:
    with under_policy.connect("demo") as agent:
        assert _sign(agent, "release")


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (("sign", "lapsed"), "key-algorithm"),
        (("sign", "digests"), "prehashed"),
        (("encrypt", "wrapping"), "lease"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_it_does_not_permit_is_refused_and_recorded(
    under_policy: Command, tmp_path: Path, arguments: tuple[str, str], rule: str
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"message")

    done = under_policy(*arguments, source, "-o", tmp_path / "output")

    assert done.returncode == 1
    assert f"[{rule}]. [POLICY_VIOLATION]" in done.stderr.decode()
    last = under_policy.records()[-1]
    assert (last["key"], last["result"]) == (arguments[1], "POLICY_VIOLATION")


def test_a_purpose_without_a_table_is_refused(under_policy: Command) -> None:
    with under_policy.connect("demo") as agent:
        key = agent.private_key("agreed")
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        peer = ec.generate_private_key(ec.SECP256R1()).public_key()
        with pytest.raises(PolicyViolation, match=r"no agree keys \[purpose\]"):
            key.exchange(ec.ECDH(), peer)


@pytest.mark.parametrize("name", ["lapsed", "digests", "agreed", "wrapping"])
def test_no_version_is_made_that_could_not_protect_anything(
    under_policy: Command, name: str
) -> None:
    refused(under_policy("keys", "rotate", name, "--dry-run"), "POLICY_VIOLATION")
    refused(under_policy("keys", "rotate", name), "POLICY_VIOLATION")
    records = [one for one in under_policy.records() if one["operation"] == "rotate"]
    assert {one["result"] for one in records} == {"POLICY_VIOLATION"}


def test_a_version_under_an_exception_is_made(under_policy: Command) -> None:
    assert b"create excepted.v2" in under_policy.ok("keys", "rotate", "excepted")


def test_an_exception_that_holds_lets_it_through(under_policy: Command, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"message")
    under_policy.ok("sign", "excepted", source, "-o", tmp_path / "signature")


def test_operators_are_told(under_policy: Command) -> None:
    told = under_policy.ok("status").decode()

    for finding in (
        "keys.lapsed.algorithm: the policy does not permit EC_P384 for sign, only EC_P256",
        "keys.digests.prehashed: the policy does not permit keys that take digests",
        "keys.agreed.purpose: the policy permits no agree keys",
        "keys.wrapping.lease.seconds: the policy permits 300 seconds, and this is 600",
        "keys.release.owner: ",
    ):
        assert finding in told
    assert "keys.excepted.algorithm" not in told


def test_the_policy_is_part_of_the_rules(under_policy: Command) -> None:
    from keycustody.config import load
    from keycustody.custody.access.rules import rules_of

    settings = load(under_policy.config)
    digest = rules_of(settings).digest

    assert under_policy.records()[-1]["rules"] == digest
    assert rules_of(settings.with_policy(None)).digest != digest


def test_a_reload_follows_the_policy_file(under_policy: Command) -> None:
    file = under_policy.config.with_name("policy.toml")
    before = file.read_text()
    try:
        file.write_text(before.replace('keys = ["EC_P256"]', 'keys = ["EC_P384"]'))
        under_policy.ok("reload")
        with under_policy.connect("demo") as agent:
            with pytest.raises(PolicyViolation, match=r"\[key-algorithm\]"):
                _sign(agent, "release")

        file.write_text("sign = 3")
        assert b"[CONFIG_INVALID]" in under_policy("reload").stderr
    finally:
        file.write_text(before)
        under_policy.ok("reload")
    with under_policy.connect("demo") as agent:
        assert _sign(agent, "release")

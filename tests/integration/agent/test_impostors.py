"""What somebody with the machine, or even with the PIN, can put on the token is not believed."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from keycustody.errors import KeycustodyError
from tests.integration.command import Command, prepare, running

# Each test starts an agent, or several, of its own.
pytestmark = pytest.mark.slow

#: Runs as the intruder, in a process of its own: argv is module, token label, PIN or "", key label.
INTRUDER = """
import sys
import pkcs11
from pkcs11 import Attribute, KeyType, ObjectClass
from pkcs11.util.ec import encode_named_curve_parameters
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

what, module, token_label, pin, label = sys.argv[1:]
token = pkcs11.lib(module).get_token(token_label=token_label)
session = token.open(rw=True, user_pin=pin or None)
key = ec.derive_private_key(4711, ec.SECP256R1())
params = encode_named_curve_parameters("1.2.840.10045.3.1.7")
point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
common = {
    Attribute.TOKEN: True,
    Attribute.KEY_TYPE: KeyType.EC,
    Attribute.LABEL: label,
    Attribute.ID: b"i" * 16,
    Attribute.EC_PARAMS: params,
}
if what == "public":
    session.create_object({
        **common,
        Attribute.CLASS: ObjectClass.PUBLIC_KEY,
        Attribute.PRIVATE: False,
        Attribute.EC_POINT: b"\\x04\\x41" + point,
        Attribute.VERIFY: True,
    })
if what == "private":
    session.create_object({
        **common,
        Attribute.CLASS: ObjectClass.PRIVATE_KEY,
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        Attribute.VALUE: key.private_numbers().private_value.to_bytes(32, "big"),
        Attribute.SIGN: True,
    })
if what == "regenerate":
    from keycustody.token.api import CreateVersion
    from keycustody.token.hsm.keys import KeyRing
    from keycustody.token.hsm.objects import MAPPER
    from keycustody.token.hsm.provisioning import create_version
    from keycustody.token.profiles import load

    session.close()
    session = token.open(rw=True, user_pin=pin, attribute_mapper=MAPPER)
    profile = load("softhsm2")
    for found in list(session.get_objects({Attribute.LABEL: label})):
        if found[Attribute.CLASS] == ObjectClass.SECRET_KEY:
            id_ = found[Attribute.ID]
            found.destroy()
    made = CreateVersion(label, id_, "wrap", "AES_256_HMAC_SHA_256")
    create_version(made, session, KeyRing(session, profile), profile)
if what == "destroy":
    for found in list(session.get_objects({Attribute.LABEL: label})):
        if found[Attribute.CLASS] != ObjectClass.DATA:  # the token protects state records
            found.destroy()
"""
MODULE, TOKEN = "/usr/lib/softhsm/libsofthsm2.so", "keycustody-dev"


@pytest.fixture
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """A token of its own, with an agent on it."""
    command = prepare(tmp_path_factory.mktemp("victim"), more="")
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    with running(command):
        yield command


def intrude(command: Command, what: str, label: str, *, pin: bool) -> None:
    known = (command.folder / "var" / "pin").read_text().strip() if pin else ""
    subprocess.run(
        [sys.executable, "-c", INTRUDER, what, MODULE, TOKEN, known, label],
        check=True,
        env={"SOFTHSM2_CONF": str(command.folder / "var/softhsm/softhsm2.conf")},
    )


def wait_for_scan(command: Command) -> list[str]:
    time.sleep(1.6)  # the tests' settings scan every second
    with command.connect("admin") as admin:
        return list(admin.status().findings)


def test_a_public_object_planted_without_a_pin_is_ignored(victim: Command) -> None:
    with victim.connect("demo") as agent:
        before = agent.public_key("release")
        intrude(victim, "public", "release.v1", pin=False)
        findings = wait_for_scan(victim)
        assert agent.public_key("release") == before
        signature = agent.sign("release", b"x")
        assert isinstance(before, ec.EllipticCurvePublicKey)
        before.verify(signature, b"x", ec.ECDSA(hashes.SHA256()))
    assert any("release.v1" in finding and "ignored" in finding for finding in findings)


def test_a_public_object_in_a_newer_version_is_ignored(victim: Command) -> None:
    intrude(victim, "public", "release.v2", pin=False)
    wait_for_scan(victim)
    with victim.connect("demo") as agent:
        assert [version.version for version in agent.key("release").versions] == [1]


def test_a_key_imported_under_our_label_is_refused(victim: Command) -> None:
    intrude(victim, "private", "release.v1", pin=True)
    findings = wait_for_scan(victim)
    with victim.connect("demo") as agent, pytest.raises(KeycustodyError) as caught:
        agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
    assert caught.value.code == "KEY_NOT_TRUSTED"
    assert any("release.v1" in finding for finding in findings)
    with victim.connect("demo") as agent:
        assert agent.sign("tokens", b"x", algorithm="ED25519")


def test_a_key_imported_as_a_newer_version_is_not_served(victim: Command) -> None:
    intrude(victim, "private", "release.v2", pin=True)
    wait_for_scan(victim)
    planted = ec.derive_private_key(4711, ec.SECP256R1()).public_key()
    with victim.connect("demo") as agent:
        signature = agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
    with pytest.raises(InvalidSignature):
        planted.verify(signature, b"x", ec.ECDSA(hashes.SHA256()))


def test_a_key_that_replaces_ours_is_refused(victim: Command) -> None:
    intrude(victim, "destroy", "release.v1", pin=True)
    intrude(victim, "private", "release.v1", pin=True)
    wait_for_scan(victim)
    with victim.connect("demo") as agent, pytest.raises(KeycustodyError) as caught:
        agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
    assert caught.value.code in {"KEY_NOT_TRUSTED", "KEY_NOT_FOUND"}


def test_a_wrap_key_that_was_made_anew_under_its_name_is_refused(victim: Command) -> None:
    with victim.connect("demo") as agent, agent.session("invoices") as session:
        box = session.encrypt(b"x")
    intrude(victim, "regenerate", "invoices.v1", pin=True)
    with victim.connect("demo") as agent:
        with pytest.raises(KeycustodyError) as generating:
            agent.session("invoices")
        with pytest.raises(KeycustodyError) as unwrapping:
            agent.decrypt(box, key="invoices", context={})
    assert {generating.value.code, unwrapping.value.code} == {"KEY_NOT_TRUSTED"}

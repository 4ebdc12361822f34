"""A key that was on the token before us is taken as it is, and accepted exactly so."""

import re
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tests.integration.command import FEW_KEYS, Command, prepare, refused, running

#: Makes a key pair as other programs do: argv is module, token label, PIN.
STRANGER = """
import sys
import pkcs11
from pkcs11 import Attribute, KeyType
from pkcs11.util.ec import encode_named_curve_parameters

module, token_label, pin = sys.argv[1:]
session = pkcs11.lib(module).get_token(token_label=token_label).open(rw=True, user_pin=pin)
params = encode_named_curve_parameters("1.2.840.10045.3.1.7")
domain = session.create_domain_parameters(KeyType.EC, {Attribute.EC_PARAMS: params}, local=True)
domain.generate_keypair(store=True, label="Old key (2019)", id=b"\\x0a\\x01",
    private_template={Attribute.EXTRACTABLE: True, Attribute.PRIVATE: True, Attribute.SIGN: True})
domain.generate_keypair(store=True, label="exchange", id=b"\\x0a\\x03",
    private_template={Attribute.PRIVATE: True, Attribute.DERIVE: True})
session.generate_keypair(KeyType.RSA, 2048, store=True, label="mail", id=b"\\x0a\\x04",
    private_template={Attribute.PRIVATE: True, Attribute.DECRYPT: True})
"""
OLD = '[keys.old]\npurpose = "sign"\nalgorithm = "EC_P256"\n'
OTHERS = """
[keys.exchange]
purpose = "agree"
algorithm = "EC_P256"
[keys.mail]
purpose = "decrypt"
algorithm = "RSA_2048"
[[grants]]
principals = ["demo"]
keys = ["exchange", "mail"]
operations = ["agree", "decrypt"]
"""


@pytest.fixture(scope="module")
def keycustody(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A token with a stranger's key and ours, and a name declared for it."""
    command = prepare(tmp_path_factory.mktemp("a"))
    command.config.write_text(FEW_KEYS)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    pin = (command.folder / "var" / "pin").read_text().strip()
    module, conf = "/usr/lib/softhsm/libsofthsm2.so", command.folder / "var/softhsm/softhsm2.conf"
    subprocess.run(
        [sys.executable, "-c", STRANGER, module, "keycustody-test", pin],
        check=True,
        env={"SOFTHSM2_CONF": str(conf)},
    )
    command.config.write_text(FEW_KEYS + OLD + OTHERS)
    for name, id_ in (("exchange", "0a03"), ("mail", "0a04")):
        command.ok("keys", "adopt", name, "--id", id_, "--config", command.config)
    return command


def test_it_is_drift_then_adopted_then_served_and_destroyed_like_any_other(
    keycustody: Command,
) -> None:
    config = ("--config", keycustody.config)
    assert b"undeclared: Old key (2019) (CKA_ID 0a01): is on the token" in keycustody.ok(
        "keys", "plan", *config
    )
    absent = ("keys", "adopt", "old", "--id", "0a02", *config)
    refused(keycustody(*absent), "KEY_NOT_FOUND")
    refused(keycustody(*absent, "--dry-run"), "KEY_NOT_FOUND")
    shown = keycustody.ok("keys", "adopt", "old", "--id", "0a01", *config).decode()
    assert shown.startswith("done: adopt old.v1: the key with CKA_ID 0a01")
    assert "EXTRACTABLE=true" in shown
    intent, outcome = [one for one in keycustody.records() if one["key"] == "old"][-2:]
    assert intent["detail"].startswith("intent: adopt old.v1")
    assert f"{outcome['detail']}\n" == shown
    assert keycustody.ok("keys", "adopt", "old", "--id", "0a01", *config).startswith(b"Nothing")
    refused(keycustody("keys", "adopt", "release", "--id", "0a01", *config), "INVALID_REQUEST")
    planned = keycustody("keys", "plan", *config, "--detailed-exitcode")
    assert (planned.returncode, planned.stderr) == (0, b""), planned.stdout
    with running(keycustody), keycustody.connect("demo") as demo:
        signature = demo.sign("old", b"x", algorithm="ECDSA_SHA_256")
        public = demo.public_key("old")
        assert isinstance(public, ec.EllipticCurvePublicKey)
        public.verify(signature, b"x", ec.ECDSA(hashes.SHA256()))
        with keycustody.connect("admin") as admin:
            (old,) = [key for key in admin.status().keys if key.name == "old"]
        shown = keycustody.ok("status").decode()
        assert re.search(r"^adopted +old\.v1 is weaker .*EXTRACTABLE=true", shown, re.MULTILINE)
        assert re.search(r"^old .*\(preferred\) .* 1 \(active, 0 days old\)$", shown, re.MULTILINE)
        described = keycustody.ok("keys", "show", "old").decode()
        assert re.search(r"^1 +active +\S+ +0 days old ", described, re.MULTILINE)
    assert "EXTRACTABLE=true" in old.details[0].weaker


def test_keys_to_agree_and_to_decrypt_serve_as_ours_do(keycustody: Command) -> None:
    ours = ec.generate_private_key(ec.SECP256R1())
    with running(keycustody), keycustody.connect("demo") as demo:
        public = demo.public_key("exchange")
        assert isinstance(public, ec.EllipticCurvePublicKey)
        shared = demo.agree("exchange", ours.public_key())
        assert shared == ours.exchange(ec.ECDH(), public)
        mail = demo.public_key("mail")
        assert isinstance(mail, rsa.RSAPublicKey)
        hashed = hashes.SHA1()  # noqa: S303 - what SoftHSM can do in OAEP
        sealed = mail.encrypt(b"x", padding.OAEP(padding.MGF1(hashed), hashed, None))
        assert demo.rsa_decrypt("mail", sealed) == b"x"

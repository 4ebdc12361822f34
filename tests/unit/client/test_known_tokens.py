"""Which token may deliver: given or remembered, and everything else refused."""

import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import keycustody
from keycustody import errors
from keycustody.client.known_tokens import fingerprint
from keycustody.formats.delivery import public_point
from keycustody.v1 import session_key_service_pb2 as sessions
from tests.unit.client.agent_double import AgentDouble


def point_of(double: AgentDouble) -> bytes:
    return public_point(double.delivery)


def use(socket: Path, **options: Any) -> bytes:
    """Make an envelope and open it."""
    with keycustody.connect(socket, **options) as agent:
        with agent.session("invoices") as session:
            box = session.encrypt(b"x")
        return agent.decrypt(box, key="invoices", context={})


def _spki(double: AgentDouble) -> bytes:
    return double.delivery.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )


FORMS: dict[str, Callable[[AgentDouble], Any]] = {
    "fingerprint": lambda double: fingerprint(point_of(double)),
    "upper case": lambda double: fingerprint(point_of(double)).upper(),
    "with its name": lambda double: f"sha256:{fingerprint(point_of(double))}",
    "point": point_of,
    "SubjectPublicKeyInfo": _spki,
    "pyca key": lambda double: double.delivery.public_key(),
    "several": lambda double: ["00" * 32, fingerprint(point_of(double))],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_given_token_delivers(double: AgentDouble, socket: Path, form: str) -> None:
    assert use(socket, delivery_key=FORMS[form](double)) == b"x"


def test_the_fingerprint_is_that_of_the_public_key(double: AgentDouble) -> None:
    import hashlib

    assert fingerprint(point_of(double)) == hashlib.sha256(_spki(double)).hexdigest()


@pytest.mark.parametrize(
    "bad",
    ["", "00" * 31, "zz" * 32, b"", bytes(64), [], [None]],
    ids=["empty", "short", "not hex", "no point", "short point", "none", "no key"],
)
def test_what_is_no_delivery_key(socket: Path, bad: Any) -> None:
    with pytest.raises(errors.InvalidRequest):
        keycustody.connect(socket, delivery_key=bad)


def test_another_token_is_refused_wherever_it_delivers(double: AgentDouble, socket: Path) -> None:
    known = fingerprint(point_of(double))
    with keycustody.connect(socket, delivery_key=known) as agent:
        box = agent.session("invoices").encrypt(b"x")
        double.delivery = ec.generate_private_key(ec.SECP256R1())
        with pytest.raises(errors.TokenNotTrusted) as opening:
            agent.session("invoices")
        with pytest.raises(errors.TokenNotTrusted) as reading:
            agent.decrypt(box, key="invoices", context={})
    for raised in (opening, reading):
        assert known in raised.value.message
        assert fingerprint(point_of(double)) in raised.value.message


@pytest.mark.parametrize("accept_plain", [False, True])
def test_a_key_in_clear_is_refused(
    double: AgentDouble, socket: Path, tmp_path: Path, accept_plain: bool
) -> None:
    double.plain = True
    for pin in ("00" * 32, keycustody.Remembered(tmp_path / "known")):
        with pytest.raises(errors.TokenNotTrusted):
            use(socket, delivery_key=pin, accept_plain=accept_plain)
    assert not (tmp_path / "known").exists()


# -- remembered ------------------------------------------------------------------------------------


@pytest.fixture
def known(tmp_path: Path) -> Path:
    return tmp_path / "known"


def test_the_first_is_remembered_and_another_refused(
    double: AgentDouble, socket: Path, known: Path
) -> None:
    first = fingerprint(point_of(double))
    assert use(socket, delivery_key=keycustody.Remembered(known)) == b"x"
    assert known.read_text() == f"{first} {socket}\n"
    assert known.stat().st_mode & 0o777 == 0o600
    assert use(socket, delivery_key=keycustody.Remembered(known)) == b"x"
    double.delivery = ec.generate_private_key(ec.SECP256R1())
    second = fingerprint(point_of(double))
    with pytest.raises(errors.TokenNotTrusted) as raised:
        use(socket, delivery_key=keycustody.Remembered(known))
    assert all(part in raised.value.message for part in (first, second, str(known)))
    assert known.read_text() == f"{first} {socket}\n"
    # A planned replacement: the operator adds the new one.
    with known.open("a") as file:
        file.write(f"# from 2027 on\n{second} {socket}\n")
    assert use(socket, delivery_key=keycustody.Remembered(known)) == b"x"


def test_what_did_not_open_is_not_remembered(
    double: AgentDouble, socket: Path, known: Path
) -> None:
    def spoil(response: Any) -> Any:
        sealed = bytearray(response.delivered.sealed)
        sealed[0] ^= 1
        delivered = sessions.DeliveredKey(sealed=bytes(sealed), delivery_point=point_of(double))
        response.delivered.CopyFrom(delivered)
        return response

    double.tamper["GenerateSessionKey"] = spoil
    with pytest.raises(errors.DeliveryRejected):
        use(socket, delivery_key=keycustody.Remembered(known))
    assert not known.exists()


def test_another_agent_is_remembered_apart(double: AgentDouble, socket: Path, known: Path) -> None:
    known.write_text(f"{'00' * 32} /elsewhere/agent.sock\n")
    known.chmod(0o600)
    assert use(socket, delivery_key=keycustody.Remembered(known)) == b"x"
    assert len(known.read_text().splitlines()) == 2


@pytest.mark.parametrize("kept", [0, 1, 63, 64, 65])
def test_a_line_cut_short_by_a_crash_counts_for_nothing(
    double: AgentDouble, socket: Path, known: Path, kept: int
) -> None:
    line = f"{'00' * 32} {socket}"
    _put(known, "# ours\n" + line[:kept])
    assert use(socket, delivery_key=keycustody.Remembered(known)) == b"x"
    assert known.read_text() == f"# ours\n{fingerprint(point_of(double))} {socket}\n"


def test_a_last_line_without_its_end_counts(double: AgentDouble, socket: Path, known: Path) -> None:
    _put(known, f"{'00' * 32} {socket}")
    with pytest.raises(errors.TokenNotTrusted):
        use(socket, delivery_key=keycustody.Remembered(known))
    _put(known, other := f"{'00' * 32} /elsewhere/agent.sock")
    assert use(socket, delivery_key=keycustody.Remembered(known)) == b"x"
    assert known.read_text() == f"{other}\n{fingerprint(point_of(double))} {socket}\n"


def test_what_does_not_fit_on_the_disk_is_not_remembered_in_part(
    double: AgentDouble, socket: Path, known: Path
) -> None:
    _put(known, before := f"{'00' * 32} /elsewhere/agent.sock\n")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(errors.FileUnusable, match="No space left"):
            use(socket, delivery_key=keycustody.Remembered(known))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert known.read_text() == before


def test_many_at_once_remember_one(double: AgentDouble, socket: Path, known: Path) -> None:
    results: list[bytes] = []

    def remember() -> None:
        results.append(use(socket, delivery_key=keycustody.Remembered(known)))

    threads = [threading.Thread(target=remember) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [b"x"] * 8
    assert known.read_text() == f"{fingerprint(point_of(double))} {socket}\n"


UNUSABLE: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "a folder": (lambda path: path.mkdir(), errors.FileUnusable),
    "no fingerprint": (lambda path: _put(path, "hello world\n"), errors.FileUnusable),
    "no target": (lambda path: _put(path, "0" * 64 + "\n"), errors.FileUnusable),
    "no fingerprint at its end": (lambda path: _put(path, "hello world"), errors.FileUnusable),
    "not text": (lambda path: _put(path, "\xff\xfe\n"), errors.FileUnusable),
    "writable by others": (lambda path: _put(path, "", 0o666), errors.InsecurePermissions),
    "a FIFO": (os.mkfifo, errors.FileUnusable),
    "in no folder": (lambda path: path.parent.rmdir(), errors.FileUnusable),
}


def _put(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_file_that_cannot_be_believed(socket: Path, tmp_path: Path, case: str) -> None:
    spoil, error = UNUSABLE[case]
    path = tmp_path / "folder" / "known"
    path.parent.mkdir()
    spoil(path)
    with pytest.raises(error):
        use(socket, delivery_key=keycustody.Remembered(path))

"""What the agent tells about keys and about itself, as frozen values.

Built from protobuf messages here and nowhere else. They hold no secret.
"""

from dataclasses import dataclass
from typing import cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keycustody.errors import InternalError, KeyNotFound, KeyPurpose, KeyRevoked
from keycustody.v1 import admin_service_pb2 as admin
from keycustody.v1 import key_service_pb2 as keys

PublicKey = EllipticCurvePublicKey | RSAPublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One generation of a key. `state` is "active" or "retired"; `public_key_der` is a DER
    SubjectPublicKeyInfo, empty for `wrap`; `created` is RFC 3339 in UTC."""

    version: int
    state: str
    public_key_der: bytes
    created: str

    def public_key(self) -> PublicKey:
        """The public half as a pyca key. Raises `KeyPurpose` for a `wrap` key, which has none."""
        if not self.public_key_der:
            raise KeyPurpose("A wrap key has no public half.")
        try:
            return cast(PublicKey, load_der_public_key(self.public_key_der))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InternalError("The agent answered with an unreadable public key.") from error


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """One key. `algorithms` are what a request may name, the operator's default first; `versions`
    are those that can be used, oldest first; `current` is the one that the agent uses where none is
    named, 0 if there is none; `revoked` are the numbers of those that were revoked or destroyed."""

    name: str
    purpose: str
    algorithm: str
    algorithms: tuple[str, ...]
    prehashed: bool
    versions: tuple[KeyVersion, ...]
    current: int = 0
    revoked: tuple[int, ...] = ()

    def version(self, number: int | None = None) -> KeyVersion:
        """The version of that number; None: the current one. Raises `KeyNotFound`, and `KeyRevoked`
        for one that was revoked or destroyed, or None if all were."""
        # An agent older than this client does not say which is the current one.
        wanted_number = number or self.current
        for entry in reversed(self.versions):
            if entry.version == wanted_number or (not wanted_number and entry.state == "active"):
                return entry
        if number in self.revoked or (number is None and self.revoked and not self.versions):
            which = "Each version" if number is None else f"Version {number}"
            raise KeyRevoked(f"{which} of key {self.name!r} was revoked or destroyed.")
        wanted = "active version" if number is None else f"version {number} that can be used"
        raise KeyNotFound(f"Key {self.name!r} has no {wanted}.")


@dataclass(frozen=True, slots=True)
class TokenStatus:
    """The token and its workers; `delivery` is "sealed", "plain" or "none", `delivery_key` the
    fingerprint that clients pin, in hex."""

    label: str
    serial: str
    model: str
    profile: str
    delivery: str
    workers_wanted: int
    workers_ready: int
    restarts: int
    scan_age_seconds: float
    delivery_key: str


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version, whatever its state. `waiting`: still too new to be used where none is named.
    `weaker` is what is recorded as weaker than in keys that keycustody makes."""

    version: int
    state: str
    created: str
    waiting: bool
    weaker: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One declared or found key; `state` is "ready", or what keeps it from being used. Of its
    `versions`, those in `unhealthy` failed their self-test and are refused. `details` are all its
    versions; `rotate_by` is RFC 3339 in UTC, empty if its settings do not say; `algorithm_status`
    is `preferred`, `acceptable`, `legacy` or `forbidden`."""

    name: str
    purpose: str
    algorithm: str
    state: str
    versions: tuple[int, ...]
    unhealthy: tuple[int, ...]
    owner: str = ""
    details: tuple[VersionStatus, ...] = ()
    rotate_by: str = ""
    algorithm_status: str = ""


@dataclass(frozen=True, slots=True)
class KeyStep:
    """One change to the token, made or planned; `text` says it in words."""

    action: str
    key: str
    version: int
    text: str
    done: bool


@dataclass(frozen=True, slots=True)
class KeyFinding:
    """One thing on the token that is not as it should be (docs/lifecycle.md)."""

    kind: str
    key: str
    version: int
    text: str


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What a change to the keys did, or would do, and what is amiss."""

    steps: tuple[KeyStep, ...]
    findings: tuple[KeyFinding, ...]


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """The last durable audit record: its sequence number, and the sha256 of its line in hex.
    `covered` is the last record that a signed head covers, `unsigned_records` came since, the first
    of them `unsigned_seconds` ago; that head was signed `head_age_seconds` ago; `verifier_key`
    verifies signed heads, "" if nothing signs them.
    """

    sequence: int
    head: str
    covered: int = 0
    unsigned_records: int = 0
    unsigned_seconds: float = 0.0
    verifier_key: str = ""
    head_age_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Status:
    """How the agent is. `findings` is what is amiss, one sentence each; `rules` is the sha256 of
    the rules in force, hex."""

    agent_version: str
    uptime_seconds: int
    token: TokenStatus
    keys: tuple[KeyStatus, ...]
    audit: AuditStatus
    findings: tuple[str, ...]
    rules: str


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What the agent follows now: the sha256 of its rules, hex, and the settings that differ in its
    file and wait for a restart."""

    rules: str
    waiting: tuple[str, ...]


def key_info(key: keys.Key) -> KeyInfo:
    """A key from the wire."""
    versions = tuple(
        KeyVersion(entry.version, entry.state, entry.public_key, entry.created)
        for entry in key.versions
    )
    return KeyInfo(
        key.name,
        key.purpose,
        key.algorithm,
        tuple(key.algorithms),
        key.prehashed,
        versions,
        key.current,
        tuple(key.revoked),
    )


def key_report(answer: admin.ChangeKeysResponse) -> KeyReport:
    """A report from the wire."""
    return KeyReport(
        tuple(
            KeyStep(step.action, step.key, step.version, step.text, step.done)
            for step in answer.steps
        ),
        tuple(
            KeyFinding(finding.kind, finding.key, finding.version, finding.text)
            for finding in answer.findings
        ),
    )


def status(answer: admin.GetStatusResponse) -> Status:
    """The agent's status from the wire."""
    token = answer.token
    return Status(
        answer.agent_version,
        answer.uptime_seconds,
        TokenStatus(
            label=token.label,
            serial=token.serial,
            model=token.model,
            profile=token.profile,
            delivery=token.delivery,
            workers_wanted=token.workers_wanted,
            workers_ready=token.workers_ready,
            restarts=token.restarts,
            scan_age_seconds=token.scan_age_seconds,
            delivery_key=token.delivery_key,
        ),
        tuple(
            KeyStatus(
                key.name,
                key.purpose,
                key.algorithm,
                key.state,
                tuple(key.versions),
                tuple(key.unhealthy),
                key.owner,
                tuple(
                    VersionStatus(
                        entry.version,
                        entry.state,
                        entry.created,
                        entry.waiting,
                        tuple(entry.weaker),
                    )
                    for entry in key.details
                ),
                key.rotate_by,
                key.algorithm_status,
            )
            for key in answer.keys
        ),
        AuditStatus(
            answer.audit.sequence,
            answer.audit.head,
            answer.audit.covered,
            answer.audit.unsigned_records,
            answer.audit.unsigned_seconds,
            answer.audit.verifier_key,
            answer.audit.head_age_seconds,
        ),
        tuple(answer.findings),
        answer.rules,
    )

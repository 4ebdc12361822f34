"""Settings in which nothing is wrong, and a list of weaknesses to plant in them.

Each weakness names the one rule that must find it, and how to plant it: an edit of a file, or
something done to the folder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NOW = datetime.now(UTC).replace(microsecond=0)
TODAY = NOW.date()

SETTINGS = """
policy = "policy.toml"
[agent]
state_dir = "state"
run_dir = "/run/k"
[token]
profile = "softhsm2"
module = "module.so"
label = "t"
delivery = "sealed"
pin = { file = "pins/pin" }
so_pin = { file = "pins/so-pin" }
[principals.ci]
[principals.billing]
identities = ["spiffe://example.org/billing"]
[keys.release]
purpose = "sign"
algorithm = "EC_P256"
owner = "release"
rotation_days = 365
[keys.archive]
purpose = "sign"
algorithm = "RSA_3072"
algorithms = ["RSA_PSS_SHA_256"]
owner = "archive"
rotation_days = 365
[keys.invoices]
purpose = "wrap"
owner = "billing"
rotation_days = 365
lease = { seconds = 300 }
[[grants]]
name = "ci"
principals = ["ci"]
keys = ["release", "archive"]
operations = ["read", "sign"]
[[grants]]
name = "billing"
principals = ["billing"]
keys = ["invoices"]
operations = ["generate", "unwrap"]
context = { tenant = "{principal}" }
budgets = [{ session_keys = 100, seconds = 60 }, { session_keys = 1000, seconds = 3600 }]
[tls]
listen = ["127.0.0.1:8443"]
certificate = "tls/agent.pem"
key = "tls/agent.key"
client_ca = "tls/ca.pem"
crl = "tls/crl.pem"
"""

POLICY = """
minimum_status = "acceptable"
[sign]
keys = ["EC_P256", "RSA_3072"]
algorithms = ["ECDSA_SHA_256", "RSA_PSS_SHA_256"]
lifetime_days = 400
[wrap]
keys = ["AES_256_HMAC_SHA_256"]
lifetime_days = 400
lease_seconds = 300
require_context = true
require_budget = true
"""


def write(folder: Path) -> Path:
    """Write settings, policy, and all that they name; return the settings' path."""
    folder.chmod(0o755)
    for name, mode in (("state", 0o700), ("pins", 0o755), ("tls", 0o755)):
        (folder / name).mkdir(mode)
    for name, mode in (("pins/pin", 0o600), ("pins/so-pin", 0o600), ("module.so", 0o644)):
        (folder / name).write_text("x")
        (folder / name).chmod(mode)
    certify(folder, timedelta(days=365))
    (folder / "policy.toml").write_text(POLICY)
    (folder / "settings.toml").write_text(SETTINGS)
    for name in ("policy.toml", "settings.toml"):
        (folder / name).chmod(0o644)
    return folder / "settings.toml"


def certify(
    folder: Path,
    left: timedelta,
    *,
    crl: timedelta = timedelta(days=365),
    old: timedelta = timedelta(days=100),
) -> None:
    """Make the files of `[tls]`, so old, and with so much time left."""
    authority = trustme.CA()
    leaf = authority.issue_cert("agent.example", not_before=NOW - old, not_after=NOW + left)
    authority.cert_pem.write_to_path(folder / "tls" / "ca.pem")
    (folder / "tls" / "agent.pem").write_bytes(leaf.cert_chain_pems[0].bytes())
    leaf.private_key_pem.write_to_path(folder / "tls" / "agent.key")
    (folder / "tls" / "agent.key").chmod(0o600)
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject
    key = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    made = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer)
        .last_update(NOW - old)
        .next_update(NOW + crl)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls" / "crl.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))


Plant = Callable[[Path], object]


def edit(name: str, old: str, new: str) -> Plant:
    """Replace what occurs exactly once in a file."""

    def plant(folder: Path) -> None:
        text = (folder / name).read_text()
        assert text.count(old) == 1, (old, text.count(old))
        (folder / name).write_text(text.replace(old, new))

    return plant


def settings(old: str, new: str) -> Plant:
    return edit("settings.toml", old, new)


def policy(old: str, new: str) -> Plant:
    return edit("policy.toml", old, new)


def excepted(rule: str, expires: date, *, key: str = "archive") -> Plant:
    """Add an exception to the policy."""

    def plant(folder: Path) -> None:
        with (folder / "policy.toml").open("a") as file:
            file.write(
                f'\n[[exceptions]]\nkey = "{key}"\nrule = "{rule}"\nreason = "r"\napprover = "a"\n'
                f"expires = {expires}\n"
            )

    return plant


def mode(name: str, bits: int) -> Plant:
    return lambda folder: (folder / name).chmod(bits)


def both(*plants: Plant) -> Plant:
    def plant(folder: Path) -> None:
        for one in plants:
            one(folder)

    return plant


def grant(**members: str) -> Plant:
    """Add a grant."""
    text = "".join(f"\n{name} = {value}" for name, value in members.items())
    return settings("[tls]", f"[[grants]]{text}\n[tls]")


@dataclass(frozen=True)
class Weakness:
    """Something wrong, the rule that finds it, and the path of the finding."""

    rule: str
    path: str
    plant: Plant
    name: str = ""


def _without_wrap(folder: Path) -> None:
    (folder / "policy.toml").write_text(POLICY.partition("[wrap]")[0])


_NO_RSA = policy('"EC_P256", "RSA_3072"', '"EC_P256"')

WEAKNESSES = (
    Weakness("settings-invalid", "colour", settings("policy =", "colour = 1\npolicy ="), "unknown"),
    Weakness("settings-invalid", "", settings('label = "t"', "label ="), "not TOML"),
    Weakness("settings-invalid", "grants.0.principals", settings('["ci"]', '["ci", "who"]'), "who"),
    Weakness(
        "settings-invalid",
        "keys.archive",
        settings('["RSA_PSS_SHA_256"]', '["RSA_PKCS1_SHA_1"]'),
        "an algorithm that is none",
    ),
    Weakness(
        "settings-invalid",
        "metrics.address",
        settings("[tls]", '[metrics]\naddress = "0.0.0.0:9100"\n[tls]'),
        "metrics for everybody",
    ),
    Weakness(
        "settings-invalid",
        "principals.billing.identities",
        settings(
            "[principals.ci]", '[principals.ci]\nidentities = ["spiffe://example.org/billing"]'
        ),
        "one identity twice",
    ),
    Weakness(
        "settings-invalid",
        "principals.ci",
        settings("[principals.ci]", "[principals.ci]\nsocket = false"),
        "nobody can be it",
    ),
    Weakness("policy-invalid", "", lambda folder: (folder / "policy.toml").unlink(), "missing"),
    Weakness("policy-invalid", "sign.hash", policy("[sign]", "[sign]\nhash = 1"), "unknown"),
    Weakness("purpose", "keys.invoices.purpose", _without_wrap),
    Weakness("key-algorithm", "keys.archive.algorithm", _NO_RSA),
    Weakness(
        "key-algorithm",
        "keys.release.algorithm",
        both(
            settings('algorithm = "EC_P256"', 'algorithm = "EC_P384"'),
            policy('["ECDSA_SHA_256",', '["ECDSA_SHA_384",'),
        ),
        "size",
    ),
    Weakness(
        "request-algorithm",
        "keys.archive.algorithms",
        settings('["RSA_PSS_SHA_256"]', '["RSA_PSS_SHA_256", "RSA_PKCS1_SHA_256"]'),
        "named",
    ),
    Weakness(
        "request-algorithm",
        "keys.archive.algorithms",
        settings('algorithms = ["RSA_PSS_SHA_256"]\n', ""),
        "by default",
    ),
    Weakness(
        "algorithm-status",
        "keys.archive.algorithm",
        both(
            policy('"acceptable"', '"preferred"'),
            policy('"EC_P256", "RSA_3072"', '"EC_P256", "RSA_2048"'),
            settings('algorithm = "RSA_3072"', 'algorithm = "RSA_2048"'),
        ),
        "of the key",
    ),
    Weakness(
        "algorithm-status",
        "keys.archive.algorithms",
        both(
            policy('"acceptable"', '"preferred"'),
            policy('"ECDSA_SHA_256", ', '"ECDSA_SHA_256", "RSA_PKCS1_SHA_256", '),
            settings('["RSA_PSS_SHA_256"]', '["RSA_PSS_SHA_256", "RSA_PKCS1_SHA_256"]'),
        ),
        "of the signature",
    ),
    Weakness(
        "prehashed",
        "keys.release.prehashed",
        settings('owner = "release"', 'owner = "release"\nprehashed = true'),
    ),
    Weakness("lease", "keys.invoices.lease.seconds", settings("seconds = 300", "seconds = 301")),
    Weakness("owner", "keys.release.owner", settings('owner = "release"\n', "")),
    Weakness(
        "rotation",
        "keys.invoices.rotation_days",
        settings('owner = "billing"\nrotation_days = 365', 'owner = "billing"'),
        "none",
    ),
    Weakness(
        "rotation",
        "keys.release.rotation_days",
        settings(
            'owner = "release"\nrotation_days = 365', 'owner = "release"\nrotation_days = 401'
        ),
        "longer than the lifetime",
    ),
    Weakness(
        "grant-context", "grants.1.context", settings('context = { tenant = "{principal}" }\n', "")
    ),
    Weakness(
        "grant-budget",
        "grants.1.budgets",
        settings(
            "budgets = [{ session_keys = 100, seconds = 60 }, "
            "{ session_keys = 1000, seconds = 3600 }]\n",
            "",
        ),
    ),
    Weakness(
        "exception-expired",
        "exceptions.0.expires",
        both(
            settings('owner = "release"', 'owner = "release"\nprehashed = true'),
            excepted("prehashed", TODAY - timedelta(days=1), key="release"),
        ),
    ),
    Weakness(
        "exception-expiring",
        "exceptions.0.expires",
        both(_NO_RSA, excepted("key-algorithm", TODAY + timedelta(days=30))),
        "in 30 days",
    ),
    Weakness(
        "exception-expiring",
        "exceptions.0.expires",
        both(_NO_RSA, excepted("key-algorithm", TODAY)),
        "today",
    ),
    Weakness(
        "exception-too-long",
        "exceptions.0.expires",
        both(_NO_RSA, excepted("key-algorithm", TODAY + timedelta(days=366))),
    ),
    Weakness(
        "exception-unused", "exceptions.0", excepted("key-algorithm", TODAY + timedelta(days=90))
    ),
    Weakness(
        "exception-unused",
        "exceptions.0",
        excepted("lifetime", TODAY + timedelta(days=90), key="nothing"),
        "no such key",
    ),
    Weakness(
        "grant-everybody",
        "grants.0.keys",
        both(
            settings('principals = ["ci"]', 'principals = ["ci", "billing"]'),
            settings('keys = ["release", "archive"]', 'keys = ["*"]'),
        ),
        "sign",
    ),
    Weakness(
        "grant-undone",
        "grants.1",
        both(
            policy("require_context = true", ""),
            policy("require_budget = true", ""),
            grant(principals='["billing"]', keys='["inv*"]', operations='["unwrap"]'),
        ),
    ),
    Weakness(
        "grant-shadowed",
        "grants.2",
        grant(principals='["ci"]', keys='["rel*"]', operations='["sign"]'),
    ),
    Weakness(
        "grant-expired",
        "grants.0.not_after",
        settings('keys = ["release"', 'not_after = 2020-01-01T00:00:00Z\nkeys = ["release"'),
    ),
    Weakness(
        "budget-void", "grants.1.budgets.1", settings("1000, seconds = 3600", "100, seconds = 5")
    ),
    Weakness(
        "principal-unused",
        "principals.old",
        settings("[principals.ci]", "[principals.ci]\n[principals.old]"),
    ),
    Weakness("key-unused", "keys.archive", settings('["release", "archive"]', '["release"]')),
    Weakness("policy-missing", "policy", settings('policy = "policy.toml"\n', "")),
    Weakness("plain-delivery", "token.delivery", settings('"sealed"', '"plain"')),
    Weakness("listener-without-crl", "tls.crl", settings('crl = "tls/crl.pem"\n', "")),
    Weakness("listener-wildcard", "tls.listen.0", settings("127.0.0.1", "0.0.0.0"), "IPv4"),  # noqa: S104  # planted
    Weakness("listener-wildcard", "tls.listen.0", settings("127.0.0.1", "[::]"), "IPv6"),
    Weakness("config-permissions", "", mode("settings.toml", 0o646), "settings"),
    Weakness("config-permissions", "policy", mode("policy.toml", 0o646), "policy"),
    Weakness(
        "config-permissions",
        "policy",
        both(
            lambda folder: (folder / "open").mkdir(),
            mode("open", 0o757),
            lambda folder: (folder / "policy.toml").rename(folder / "open" / "policy.toml"),
            settings('policy = "policy.toml"', 'policy = "open/policy.toml"'),
        ),
        "its folder",
    ),
    Weakness("pin-permissions", "token.pin.file", mode("pins/pin", 0o640)),
    Weakness("pin-permissions", "token.so_pin.file", mode("pins/so-pin", 0o604), "SO PIN"),
    Weakness(
        "pin-folder",
        "token.pin.file",
        both(mode("pins", 0o757), settings('so_pin = { file = "pins/so-pin" }\n', "")),
    ),
    Weakness("tls-key-permissions", "tls.key", mode("tls/agent.key", 0o640)),
    Weakness("state-permissions", "agent.state_dir", mode("state", 0o750)),
    Weakness("module-permissions", "token.module", mode("module.so", 0o666), "the file"),
    Weakness(
        "module-permissions",
        "token.module",
        both(
            lambda folder: (folder / "open").mkdir(),
            mode("open", 0o777),
            lambda folder: (folder / "module.so").rename(folder / "open" / "module.so"),
            settings('"module.so"', '"open/module.so"'),
        ),
        "its folder",
    ),
    Weakness(
        "certificate-unusable",
        "tls.client_ca",
        lambda folder: (folder / "tls" / "ca.pem").write_text("nothing"),
    ),
    Weakness(
        "certificate-unusable",
        "tls.crl",
        lambda folder: (folder / "tls" / "crl.pem").write_text("nothing"),
        "list",
    ),
    Weakness(
        "certificate-expired",
        "tls.certificate",
        lambda folder: certify(folder, timedelta(seconds=-1)),
    ),
    Weakness(
        "certificate-expired",
        "tls.crl",
        lambda folder: certify(folder, timedelta(days=365), crl=timedelta(seconds=-1)),
        "list",
    ),
    Weakness(
        "certificate-expiring",
        "tls.certificate",
        lambda folder: certify(folder, timedelta(days=30)),
    ),
    Weakness(
        "certificate-expiring",
        "tls.crl",
        lambda folder: certify(folder, timedelta(days=365), crl=timedelta(days=1)),
        "list",
    ),
)

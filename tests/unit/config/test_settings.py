"""Settings are refused as a whole, with every finding, each with its file and key path."""

from pathlib import Path

import pytest

from keycustody.config import SOCKET_PATH_BYTES, load
from keycustody.errors import ConfigInvalid

_ROOT = Path(__file__).parents[3]
_SHIPPED = [
    path
    for path in sorted((_ROOT / "hsm_config").glob("*.toml"))
    if path.name != "crypto_policy.toml"
]

GOOD = """
[agent]
state_dir = "state"
run_dir = "/run/k"
[token]
profile = "softhsm2"
module = "/usr/lib/softhsm/libsofthsm2.so"
label = "t"
pin = { file = "pin" }
[principals.demo]
[keys.release]
purpose = "sign"
algorithm = "EC_P256"
[[grants]]
principals = ["demo"]
keys = ["rel*"]
operations = ["sign"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def findings(folder: Path, text: str) -> list[str]:
    """Return the findings without the file's name, which each must start with."""
    path = write(folder, text)
    with pytest.raises(ConfigInvalid) as caught:
        load(path)
    lines = caught.value.message.split("\n")
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


def changed(old: str, new: str) -> str:
    """Return the good settings with one line different."""
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.name) for path in _SHIPPED],
)
def test_every_settings_file_of_ours_loads(path: Path) -> None:
    settings = load(path)
    assert settings.token.profile in path.read_text()
    assert set(settings.keys)
    granted = {key for grant in settings.grants for key in grant.keys}
    assert granted == set(settings.keys)


def test_there_is_one_settings_file_for_each_profile() -> None:
    loaded = [load(path).token.profile for path in _SHIPPED]
    assert sorted(loaded) == ["nss", "opencryptoki", "p11_kit_remote", "softhsm2", "tpm2_pkcs11"]


def test_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    settings = load(write(tmp_path, GOOD))
    assert settings.agent.state_dir == tmp_path / "state"
    assert settings.token.pin.file == tmp_path / "pin"


def test_config_dir_stands_for_the_folder_in_the_environment(tmp_path: Path) -> None:
    text = GOOD + '[token.environment]\nSOFTHSM2_CONF = "{config_dir}/x.conf"\n'
    assert load(write(tmp_path, text)).token.environment == {"SOFTHSM2_CONF": f"{tmp_path}/x.conf"}


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = load(write(tmp_path, GOOD))
    with pytest.raises(ValueError, match="frozen"):
        settings.limits = settings.limits  # type: ignore[misc]


def test_a_principal_gets_a_socket_and_so_do_the_operators(tmp_path: Path) -> None:
    settings = load(write(tmp_path, GOOD))
    assert settings.socket_names == ("admin", "demo")
    assert settings.socket_path("demo") == Path("/run/k/demo/agent.sock")


def test_every_finding_is_told_at_once(tmp_path: Path) -> None:
    text = """
colour = "red"
[agent]
state_dir = 7
[token]
profile = "softhsm3"
module = "m"
pin = { file = "pin", prompt = true }
workers = "two"
[principals.admin]
[keys.release]
purpose = "sign"
algorithm = "EC_P521"
[[grants]]
principals = ["nobody"]
keys = ["none*"]
operations = ["singe"]
[limits]
items = 0
"""
    told = findings(tmp_path, text)
    for start in (
        "colour: is not a setting",
        "agent.state_dir: must be a valid string",
        "agent.run_dir: is missing",
        "token.profile: must be 'softhsm2'",
        "token.pin: name exactly one of file, credential, prompt",
        "token.workers: must be a valid integer",
        "principals.admin: is reserved",
        "keys.release: algorithm must be one of",
        "grants.0.principals: 'nobody' is not declared",
        "grants.0.keys: 'none*' matches no declared key",
        "grants.0.operations.0: must be 'read'",
        "limits.items: must be greater than or equal to 1",
    ):
        assert any(line.startswith(start) for line in told), (start, told)
    # That no member is left of the list only follows from it.
    assert not any(line.startswith("grants.0.operations: ") for line in told)


@pytest.mark.parametrize(
    ("old", "new", "start"),
    [
        ('label = "t"', 'labl = "t"', "token.labl: is not a setting"),
        ('label = "t"', "", "token: name the token by label, by serial, or both"),
        ('label = "t"', f'label = "{"t" * 33}"', "token.label: string should have at most 32"),
        ("[principals.demo]", "[principals.Demo]", "principals.Demo: string should match"),
        ("[principals.demo]", "[principals.demo]\ngroup = 3", "principals.demo.group: must be a"),
        ("[keys.release]", '[keys."a:b"]', "keys.a:b: string should match pattern"),
        ("[keys.release]", f"[keys.{'k' * 65}]", f"keys.{'k' * 65}: string should match pattern"),
        ('purpose = "sign"', 'purpose = "mac"', "keys.release.purpose: must be 'sign'"),
        ('purpose = "sign"', 'purpose = "wrap"', "keys.release: purpose wrap needs algorithm"),
        ('algorithm = "EC_P256"', 'algorithm = "RSA"', "keys.release: algorithm must be one of"),
        (
            'algorithm = "EC_P256"',
            'algorithm = "EC_P256"\nalgorithms = ["ECDSA_SHA_384"]',
            "keys.release: algorithms must name, once each, what a EC_P256 key",
        ),
        (
            'algorithm = "EC_P256"',
            'algorithm = "EC_P256"\nalgorithms = ["ECDSA"]',
            "keys.release: Algorithm 'ECDSA' is not known",
        ),
        (
            'algorithm = "EC_P256"',
            'algorithm = "ED25519"\nprehashed = true',
            "keys.release: prehashed is for ECDSA and RSA",
        ),
        ('operations = ["sign"]', "operations = []", "grants.0.operations: "),
        ('principals = ["demo"]', 'principals = ["demo", "d"]', "grants.0.principals: 'd' is not"),
        ("[agent]", "agent = 3\n[agents]", "agent: must be a table"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, old: str, new: str, start: str) -> None:
    told = findings(tmp_path, changed(old, new))
    assert any(line.startswith(start) for line in told), told


def test_nothing_is_converted_in_silence(tmp_path: Path) -> None:
    told = findings(
        tmp_path, GOOD + '[limits]\nitems = "12"\ndeadline_seconds = "1"\nqueue = 1.0\n'
    )
    assert [line.split(":")[0] for line in told] == [
        "limits.items",
        "limits.deadline_seconds",
        "limits.queue",
    ]


def test_a_socket_path_that_linux_would_refuse_is_refused(tmp_path: Path) -> None:
    for spare in (0, 1):
        # agent.sock in the longest principal's folder, exactly as long as allowed, and one longer.
        folder = "/" + "r" * (SOCKET_PATH_BYTES + spare - len("//admin/agent.sock"))
        text = changed('run_dir = "/run/k"', f'run_dir = "{folder}"')
        if spare == 0:
            assert len(bytes(load(write(tmp_path, text)).socket_path("admin"))) == SOCKET_PATH_BYTES
        else:
            (told,) = findings(tmp_path, text)
            assert told.startswith("agent.run_dir: the socket path ")


def test_a_key_that_the_token_cannot_have_is_refused(tmp_path: Path) -> None:
    text = changed('profile = "softhsm2"', 'profile = "opencryptoki"')
    (told,) = findings(tmp_path, text)
    assert told.startswith(
        "keys.release.algorithm: a token of profile opencryptoki has no EC_P256 "
    )


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ('purpose = "agree"\nalgorithm = "EC_P256"', "keys.other.algorithm"),
        (
            'purpose = "decrypt"\nalgorithm = "RSA_2048"\nalgorithms = ["RSA_OAEP_SHA_256"]',
            "keys.other.algorithms",
        ),
    ],
    ids=["a purpose", "an algorithm"],
)
def test_what_the_token_cannot_serve_is_refused(tmp_path: Path, key: str, path: str) -> None:
    text = changed('profile = "softhsm2"', 'profile = "p11_kit_remote"')
    (told,) = findings(tmp_path, f"{text}\n[keys.other]\n{key}\n")
    assert told.startswith(f"{path}: a token of profile p11_kit_remote has no ")


@pytest.mark.parametrize(
    "pin",
    [
        'pin = "canary-4711"',
        'pin = { value = "canary-4711" }',
        'pin = { prompt = "canary-4711" }',
        'pin = { file = "pin", user = "canary-4711" }',
        'pin = ["canary-4711"]',
    ],
)
def test_a_secret_put_where_none_belongs_is_not_repeated(tmp_path: Path, pin: str) -> None:
    told = "\n".join(findings(tmp_path, changed('pin = { file = "pin" }', pin)))
    assert "token.pin" in told
    assert "canary" not in told


def test_a_secret_in_a_line_that_is_not_toml_is_not_repeated(tmp_path: Path) -> None:
    told = "\n".join(findings(tmp_path, changed('pin = { file = "pin" }', "pin = canary-4711")))
    assert "is not TOML" in told
    assert "canary" not in told


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\xfe", "is not TOML"),
        (b"[agent", "is not TOML"),
        (b"", "agent: is missing"),
        (b"a = " + b"1" * 5000, "is not TOML"),
        (b"a = " + b"[" * 5000, "is nested too deeply"),
        (b"a" + b".a" * 5000 + b" = 1", "has a name of more than 32 parts"),
        (b"a = {" + b"'b c' . " * 5000 + b"d = 1}", "has a name of more than 32 parts"),
        (b"a" * 2**20 + b".b = 1", "is longer than 1048576 bytes"),
        (b"a" * (2**20 - 6) + b".b = 1", "is not a setting"),
    ],
)
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigInvalid, match=expected):
        load(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"nowhere\.toml: cannot be read: No such file"):
        load(tmp_path / "nowhere.toml")

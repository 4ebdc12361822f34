"""Two agents on one token: both rotate at once and agree; what one revokes the other refuses."""

import time

import pytest

from keycustody.errors import KeyRevoked
from tests.integration.command import FEW_KEYS, Command, prepare, running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> tuple[Command, Command]:
    """Two folders with state and sockets of their own, and one token."""
    one = prepare(tmp_path_factory.mktemp("t"))
    one.config.write_text(FEW_KEYS + '[keys.invoices]\npurpose = "wrap"\n')
    one.ok("token", "init", "--config", one.config)
    one.ok("keys", "apply", "--config", one.config)
    folder = tmp_path_factory.mktemp("u")
    (folder / "hsm_config").mkdir()
    two = Command(folder, {"KEYCUSTODY_SOCKET": str(folder / "var/run/demo/agent.sock")})
    settings = one.config.read_text()
    for name in ("pin", "so-pin", "softhsm/softhsm2.conf"):
        settings = settings.replace(f"../var/{name}", str(one.folder / "var" / name))
    settings = settings.replace("{config_dir}/" + str(one.folder), str(one.folder))
    two.config.write_text(settings)
    (folder / "var").mkdir()
    return one, two


def ids(command: Command, name: str) -> dict[int, bytes]:
    """The public keys of the versions that an agent serves."""
    with command.connect("demo") as demo:
        return {version.version: version.public_key_der for version in demo.key(name).versions}


def test_both_rotate_at_once_and_agree(agents: tuple[Command, Command]) -> None:
    one, two = agents
    for name in ("release", "invoices", "release"):
        begun = [
            command.start("keys", "rotate", name, "--config", command.config) for command in agents
        ]
        ended = [process.communicate(timeout=60) for process in begun]
        for command, process, (_, stderr) in zip(agents, begun, ended, strict=True):
            # 4: the module failed while the other one wrote. Then the same command is repeated.
            assert process.returncode in (0, 4), stderr.decode()
            if process.returncode == 4:
                command.ok("keys", "apply", "--config", command.config)
    with running(one), running(two):
        served = ids(one, "release")
        assert served == ids(two, "release")
        assert sorted(served) == list(range(1, len(served) + 1))
        with two.connect("demo") as demo:
            assert demo.sign("release", b"x", algorithm="ECDSA_SHA_256")


def test_what_one_revokes_the_other_refuses_within_its_interval(
    agents: tuple[Command, Command],
) -> None:
    one, two = agents
    with running(one), running(two):
        newest = max(ids(two, "release"))
        revoke = ("revoke", "release", "--version", str(newest), "--reason", "stolen")
        one.ok("keys", *revoke, "--socket", one.socket("admin"))
        with one.connect("demo") as demo, pytest.raises(KeyRevoked):
            demo.sign("release", b"x", algorithm="ECDSA_SHA_256", version=newest)
        with two.connect("demo") as demo:
            # The stated interval is one second; the machine may be busy.
            deadline = time.monotonic() + 10
            while newest in ids(two, "release"):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            with pytest.raises(KeyRevoked):
                demo.sign("release", b"x", algorithm="ECDSA_SHA_256", version=newest)
            assert demo.sign("release", b"x", algorithm="ECDSA_SHA_256")

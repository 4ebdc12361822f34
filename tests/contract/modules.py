"""Each PKCS#11 module, set up with a fresh token of its own, or the reason why that cannot be.

A set-up is a context manager that yields a `Provisioned`. Whatever it started, it stops. It raises
`Missing` when the module, or a program that it needs, is not installed.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PIN = "us123456"
SO_PIN = "so123456"
LABEL = "contract"

_INIT_TOKEN = """
import sys, PyKCS11
module, label, so_pin, pin = sys.argv[1:]
library = PyKCS11.PyKCS11Lib()
library.load(module)
slot = library.getSlotList()[0]
library.initToken(slot, so_pin, label.ljust(32))
session = library.openSession(slot, PyKCS11.CKF_RW_SESSION | PyKCS11.CKF_SERIAL_SESSION)
session.login(so_pin, PyKCS11.CKU_SO)
session.initPin(pin)
session.logout()
"""

#: In a mount namespace of its own, so that the system's p11-kit configuration stays as it is.
_AS_ROOT = 'mount -t tmpfs none "$1" && cp "$2" "$1" && shift 2 && exec "$@"'
_P11_KIT_MODULES = "/usr/share/p11-kit/modules"


class Missing(Exception):
    """What is not installed."""


@dataclass(frozen=True)
class Provisioned:
    """A token to talk to: the module, how the token is named, and what the process needs."""

    module: str
    environment: Mapping[str, str] = field(default_factory=dict)
    label: str = LABEL
    pin: str = PIN
    #: Put before the command of a process that uses the module.
    prefix: tuple[str, ...] = ()


@contextlib.contextmanager
def softhsm2(folder: Path) -> Iterator[Provisioned]:
    """SoftHSM2 with a token folder of its own."""
    tokens = folder / "tokens"
    tokens.mkdir(mode=0o700)
    conf = folder / "softhsm2.conf"
    conf.write_text(
        f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    environment = {"SOFTHSM2_CONF": str(conf)}
    pins = ("--so-pin", SO_PIN, "--pin", PIN)
    _run("softhsm2-util", "--init-token", "--free", "--label", LABEL, *pins, env=environment)
    yield Provisioned(library("softhsm/libsofthsm2.so"), environment)


@contextlib.contextmanager
def p11_kit_remote(folder: Path) -> Iterator[Provisioned]:
    """SoftHSM2 behind p11-kit's server."""
    front = library("pkcs11/p11-kit-client.so")
    address = folder / "p11.sock"
    with softhsm2(folder) as behind:
        command = ("p11-kit", "server", "-f", "-n", str(address), "--provider", behind.module)
        with _running(*command, f"pkcs11:token={LABEL}", env=behind.environment):
            wait_for(address.is_socket)
            yield Provisioned(front, {"P11_KIT_SERVER_ADDRESS": f"unix:path={address}"})


@contextlib.contextmanager
def nss(folder: Path) -> Iterator[Provisioned]:
    """NSS softokn, which only p11-kit's proxy can hand its configuration string."""
    front, softokn = library("p11-kit-proxy.so"), library("libsoftokn3.so")
    database = folder / "db"
    database.mkdir()
    password = folder / "password"
    password.write_text(PIN)
    _run("certutil", "-N", "-d", f"sql:{database}", "-f", str(password))
    config = folder / "config" / "pkcs11"
    (config / "modules").mkdir(parents=True)
    (config / "pkcs11.conf").write_text("user-config: only\n")
    module_file = config / "modules" / "nss.module"
    module_file.write_text(
        f"module: {softokn}\ncritical: yes\nx-init-reserved: configdir='sql:{database}' "
        f"certPrefix='' keyPrefix='' secmod='secmod.db' flags=optimizeSpace "
        f"dbTokenDescription='{LABEL}'\n"
    )
    environment = {"XDG_CONFIG_HOME": str(config.parent)}
    # p11-kit ignores a user's configuration when it runs as root.
    prefix = (
        ("unshare", "--mount", "sh", "-c", _AS_ROOT, "sh", _P11_KIT_MODULES, str(module_file))
        if os.geteuid() == 0
        else ()
    )
    yield Provisioned(front, environment, prefix=prefix)


@contextlib.contextmanager
def tpm2_pkcs11(folder: Path) -> Iterator[Provisioned]:
    """tpm2-pkcs11 on a simulated TPM, behind the resource manager on a message bus of its own."""
    module = library("pkcs11/libtpm2_pkcs11.so")
    library("libtss2-tcti-tabrmd.so.0")
    for name in ("state", "store"):
        (folder / name).mkdir()
    port = _two_free_ports()
    tpm = ("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder / 'state'}")
    ports = ("--server", f"type=tcp,port={port}", "--ctrl", f"type=tcp,port={port + 1}")
    bus = folder / "bus"
    address = f"unix:path={bus}"
    manager = (
        "tpm2-abrmd",
        "--session",
        "--allow-root",
        f"--tcti=swtpm:host=127.0.0.1,port={port}",
    )
    bus_environment = {"DBUS_SESSION_BUS_ADDRESS": address}
    with contextlib.ExitStack() as stack:
        stack.enter_context(_running(*tpm, *ports, "--flags", "not-need-init,startup-clear"))
        command = ("dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={address}")
        stack.enter_context(_running(*command))
        wait_for(bus.is_socket)
        stack.enter_context(_running(*manager, env=bus_environment))
        environment = bus_environment | {
            "TPM2_PKCS11_TCTI": "tabrmd:bus_type=session",
            "TPM2_PKCS11_STORE": str(folder / "store"),
        }
        script = (sys.executable, "-c", _INIT_TOKEN, module, LABEL, SO_PIN, PIN)
        wait_for(lambda: _succeeds(*script, env=environment))
        yield Provisioned(module, environment)


@contextlib.contextmanager
def opencryptoki(_: Path) -> Iterator[Provisioned]:
    """opencryptoki, whose daemon and store belong to the system: the operator names a token there.

    KEYCUSTODY_TEST_OPENCRYPTOKI is `label:pin` of a token that may be filled with test keys.
    """
    module = library("pkcs11/libopencryptoki.so")
    named = os.environ.get("KEYCUSTODY_TEST_OPENCRYPTOKI", "")
    label, _colon, pin = named.rpartition(":")
    if not label:
        raise Missing("KEYCUSTODY_TEST_OPENCRYPTOKI (label:pin; see hsm_config/opencryptoki.toml)")
    yield Provisioned(module, label=label, pin=pin)


SetUp = Callable[[Path], contextlib.AbstractContextManager[Provisioned]]
SET_UPS: Mapping[str, SetUp] = {
    "softhsm2": softhsm2,
    "nss": nss,
    "opencryptoki": opencryptoki,
    "tpm2_pkcs11": tpm2_pkcs11,
    "p11_kit_remote": p11_kit_remote,
}


def library(name: str) -> str:
    """Return the path of a library, wherever the distribution puts such."""
    for pattern in (f"usr/lib/{name}", f"usr/lib/*/{name}", f"usr/lib64/{name}"):
        for path in sorted(Path("/").glob(pattern)):
            return str(path)
    raise Missing(name)


def _program(name: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"the program {name}")
    return found


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **env}


def _run(program: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
    subprocess.run(
        [_program(program), *arguments],
        env=_environment(env or {}),
        check=True,
        capture_output=True,
        timeout=60,
    )


def _succeeds(*command: str, env: Mapping[str, str]) -> bool:
    done = subprocess.run(
        command, env=_environment(env), check=False, capture_output=True, timeout=60
    )
    return done.returncode == 0


@contextlib.contextmanager
def _running(
    program: str, *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [_program(program), *arguments],
        env=_environment(env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("a module's helper did not come up")
        time.sleep(0.05)


def _two_free_ports() -> int:
    """tcti-swtpm takes the control port to be the one after the server's."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port

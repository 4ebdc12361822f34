"""What a run was made on and with."""

import importlib.metadata
import os
import platform
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path

_PACKAGES = (
    "keycustody", "cryptography", "grpcio", "protobuf", "python-pkcs11", "uvloop", "msgspec",
    "tink", "aws-encryption-sdk", "pyrage", "PyNaCl",
)  # fmt: skip


def described() -> dict[str, str]:
    """Processor, memory, kernel, Python."""
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor() or platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": processor,
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def versions() -> Mapping[str, str]:
    """Of what is measured; nothing for what is absent."""
    found = {"SoftHSM": _softhsm(), "OpenSSL of Python": ssl.OPENSSL_VERSION}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _softhsm() -> str:
    done = subprocess.run(
        ["softhsm2-util", "--version"], check=False, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"

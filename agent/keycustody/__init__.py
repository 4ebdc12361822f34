"""keycustody: private keys stay in hardware, bulk encryption stays in your process.

The client library. `connect()` gives an `Agent`; docs/client.md has a tour. The rest of the package
(`token`, `custody`, `service`, `daemon`, `cli`) is the agent and its command line, and is not part
of this interface.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keycustody.client import ANY, Agent, Remembered, Session, Tls, connect
    from keycustody.errors import KeycustodyError

__version__ = "0.1.0"
__all__ = ["ANY", "Agent", "KeycustodyError", "Remembered", "Session", "Tls", "connect"]

# Names resolve on first use: worker processes import this package too, and must not pay 100 ms and
# 20 MB for a gRPC client that they never use.
_HOME = {"KeycustodyError": "keycustody.errors"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME.get(name, "keycustody.client")), name)

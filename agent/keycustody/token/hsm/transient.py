"""Session objects of one request, destroyed whatever happens.

SoftHSM keeps the values of private objects encrypted in memory; nothing here reads one, except
`value`, which serves plain delivery, agreements and proofs and works on objects that were made
readable for that.
"""

from functools import cache
from types import TracebackType
from typing import Any

import pkcs11
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import PKCS11Error
from pkcs11.mechanisms import KDF, KeyType, Mechanism

from keycustody.errors import UnsupportedByToken
from keycustody.formats.suites import KW_BYTES, SESSION_KEY_BYTES
from keycustody.token.hsm.failures import exactly
from keycustody.token.hsm.objects import template
from keycustody.token.profiles import Profile

_made = 0


def made() -> int:
    """Return how many objects this process has made: modules leak some memory with each."""
    return _made


class Transient:
    """Makes session objects; as a context manager, destroys all that it made."""

    def __init__(self, session: pkcs11.Session, profile: Profile) -> None:
        self._session: Any = session
        self._profile = profile
        self._made: list[Any] = []

    def __enter__(self) -> "Transient":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        first: PKCS11Error | None = None
        for made in reversed(self._made):
            try:
                made.destroy()
            except PKCS11Error as error:
                first = first or error
        self._made.clear()
        # A key that cannot be destroyed is a sick module: said, unless something worse is being.
        if first is not None and raised is None:
            raise first

    def session_key(self, *, sensitive: bool) -> Any:
        """Make a 256-bit key that can be wrapped and, unless sensitive, read."""
        return self._keep(
            self._session.generate_key(
                KeyType.AES,
                SESSION_KEY_BYTES * 8,
                capabilities=0,
                template=_passing(sensitive=sensitive, extractable=True),
            )
        )

    def unwrap(self, wrapping: Any, wrapped: bytes, *, sensitive: bool) -> Any:
        """Unwrap a session key. No CKA_VALUE_LEN: SoftHSM refuses it here."""
        return self._keep(
            wrapping.unwrap_key(
                ObjectClass.SECRET_KEY,
                KeyType.AES,
                wrapped,
                mechanism=mechanism(self._profile.wrap),
                capabilities=0,
                template=_passing(sensitive=sensitive, extractable=True),
            )
        )

    def wrap(self, wrapping: Any, key: Any) -> bytes:
        """Wrap a session key under another."""
        wrapped = wrapping.wrap_key(key, mechanism=mechanism(self._profile.wrap))
        return exactly(bytes(wrapped), KW_BYTES)

    def agreement(self, private: Any, point: bytes) -> Any:
        """Derive Z, a key that can only derive: neither it nor what it is leaves the token."""
        return self._keep(
            private.derive_key(
                KeyType.AES,
                256,
                mechanism=mechanism(self._profile.agree),
                mechanism_param=(KDF.NULL, None, point),
                capabilities=0,
                template=_passing(sensitive=True, extractable=False, DERIVE=True),
            )
        )

    def transport_key(self, agreed: Any, bound: bytes) -> Any:
        """Derive T, a key that can only wrap, from Z and a 32-byte binding."""
        return self._keep(
            agreed.derive_key(
                KeyType.AES,
                256,
                mechanism=mechanism(self._profile.seal),
                mechanism_param=bound,
                capabilities=0,
                template=_passing(sensitive=True, extractable=False, WRAP=True),
            )
        )

    def shared_secret(self, private: Any, point: bytes, length: int) -> bytes:
        """Agree and return the x coordinate, `length` bytes."""
        agreed = self._keep(
            private.derive_key(
                KeyType.GENERIC_SECRET,
                length * 8,
                mechanism=mechanism(self._profile.agree),
                mechanism_param=(KDF.NULL, None, point),
                capabilities=0,
                template=_passing(sensitive=False, extractable=True),
            )
        )
        return self.value(agreed, length)

    @staticmethod
    def value(key: Any, length: int = SESSION_KEY_BYTES) -> bytes:
        """Read a key that was made readable."""
        return exactly(bytes(key[Attribute.VALUE]), length)

    def _keep(self, made: Any) -> Any:
        global _made  # noqa: PLW0603 (of one process with one thread, like the module's own memory)
        _made += 1
        self._made.append(made)
        return made


def mechanism(name: str | None) -> Mechanism:
    """Return python-pkcs11's mechanism of that name; `UnsupportedByToken` for None."""
    if name is None:
        raise UnsupportedByToken("The token's profile has no mechanism for this operation.")
    return Mechanism[name]


@cache
def _passing(*, sensitive: bool, extractable: bool, **uses: bool) -> dict[Attribute, Any]:
    return template(
        {
            "TOKEN": False,
            "PRIVATE": True,
            "SENSITIVE": sensitive,
            "EXTRACTABLE": extractable,
            **uses,
        }
    )

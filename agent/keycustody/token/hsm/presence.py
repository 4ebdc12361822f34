"""Is the token still there, and are we still logged in? Asked before anything is believed missing.

A token that went away often says so by showing nothing: SoftHSM finds no objects any more and calls
handles invalid; a login that was lost hides what is private. Neither is a key that does not exist.
"""

from typing import Any

from pkcs11.exceptions import FunctionNotSupported, RandomNoRNG, UserNotLoggedIn

from keycustody.token.hsm.failures import TokenGone
from keycustody.token.hsm.objects import find


class Presence:
    """One token, as this process found it when it opened it."""

    def __init__(self, token: Any, session: Any) -> None:
        self._token = token
        self._session = session
        self._seen = False

    def check(self) -> None:
        """Raise a `PKCS11Error` unless the same token is in its slot. Some 100 us on SoftHSM."""
        token = self._token
        now = token.slot.get_token()
        if (now.label, now.serial) != (token.label, token.serial):
            raise TokenGone("another token is in the slot")

    def probe(self) -> None:
        """`check`, and use the session for something that every token can do."""
        self.check()
        try:
            self._session.generate_random(8)
        except (RandomNoRNG, FunctionNotSupported):
            return

    def saw(self, *, something: bool) -> None:
        """Take note of whether a look at everything private showed something."""
        if self._seen and not something:
            self.check()
            raise UserNotLoggedIn("nothing private is shown any more")
        self._seen = something

    def confirm_missing(self) -> None:
        """Raise a `PKCS11Error` if an object seems to be missing because everything is."""
        self.check()
        if self._seen:
            self.saw(something=bool(find(self._session, PRIVATE=True)))

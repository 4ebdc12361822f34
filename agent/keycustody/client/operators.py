"""What operators ask of a running agent about its keys, on the administrators' own socket."""

from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

from keycustody.client import calls
from keycustody.client.calls import Flow, ask
from keycustody.client.values import KeyReport
from keycustody.v1 import admin_service_pb2 as admin

#: What running a flow gives: the report, or for asyncio the promise of it.
Answer = TypeVar("Answer")


class Changes(Generic[Answer]):
    """Changes to the keys, one method each; `dry_run` only says what would be done.

    A change that was made already has no steps, so that one whose answer was lost may be asked for
    again. docs/lifecycle.md says what each does.
    """

    def __init__(self, run: Callable[[Flow[KeyReport]], Answer]) -> None:
        self._run = run

    def _ask(self, request: admin.ChangeKeysRequest) -> Answer:
        return self._run(ask(calls.change_keys(request)))

    def apply(self, *, dry_run: bool = False) -> Answer:
        """Make what is declared and missing, finish what was interrupted, retire what was
        superseded."""
        return self._ask(admin.ChangeKeysRequest(apply=admin.ApplyKeys(), dry_run=dry_run))

    def rotate(self, name: str = "", *, dry_run: bool = False) -> Answer:
        """Make the next version of a key, or of every key that is due."""
        change = admin.RotateKeys(key=name)
        return self._ask(admin.ChangeKeysRequest(rotate=change, dry_run=dry_run))

    def retire(self, name: str, version: int, *, dry_run: bool = False) -> Answer:
        """Let a version verify, unwrap and decrypt only."""
        change = admin.RetireVersion(key=name, version=version)
        return self._ask(admin.ChangeKeysRequest(retire=change, dry_run=dry_run))

    def revoke(self, name: str, version: int, reason: str, *, dry_run: bool = False) -> Answer:
        """Let a version do nothing any more."""
        change = admin.RevokeVersion(key=name, version=version, reason=reason)
        return self._ask(admin.ChangeKeysRequest(revoke=change, dry_run=dry_run))

    def destroy(self, name: str, version: int, confirm: str, *, dry_run: bool = False) -> Answer:
        """Remove the objects of a revoked version for good; `confirm` is the key's name again."""
        change = admin.DestroyVersion(key=name, version=version, confirm=confirm)
        return self._ask(admin.ChangeKeysRequest(destroy=change, dry_run=dry_run))

    def adopt(self, name: str, id_: bytes, version: int = 0, *, dry_run: bool = False) -> Answer:
        """Take a key that was on the token before, by its `CKA_ID`, under a declared name."""
        change = admin.AdoptKey(key=name, id=id_, version=version)
        return self._ask(admin.ChangeKeysRequest(adopt=change, dry_run=dry_run))


KeyChanges: TypeAlias = Changes[KeyReport]

"""One open token: a method for what opens it, and `perform` for every other request of the api."""

from typing import Any

from pkcs11.exceptions import PKCS11Error

from keycustody import algorithms, errors
from keycustody.token import profiles, remedies
from keycustody.token.api import (
    NOT_IDEMPOTENT,
    Agree,
    AnyReply,
    AnyRequest,
    ChangePin,
    CreateVersion,
    Decrypt,
    DestroyObjects,
    Done,
    GenerateSessionKey,
    Inspect,
    Login,
    Open,
    Outputs,
    Probe,
    RewrapSessionKeys,
    Scan,
    Scanned,
    SelfTest,
    Sign,
    TokenInfo,
    UnwrapSessionKeys,
    Witness,
    Witnessed,
    WriteData,
)
from keycustody.token.hsm import login, module, operations, provisioning, session_keys, witness
from keycustody.token.hsm.failures import code, failure
from keycustody.token.hsm.keys import KeyRing
from keycustody.token.hsm.presence import Presence
from keycustody.token.remedies import Remedy

_Work = (
    Sign
    | Agree
    | Decrypt
    | GenerateSessionKey
    | UnwrapSessionKeys
    | RewrapSessionKeys
    | Probe
    | Scan
    | CreateVersion
    | Witness
    | SelfTest
    | DestroyObjects
    | Inspect
    | WriteData
)
#: What is believed when it finds nothing.
_LOOKS = (Scan, Inspect, DestroyObjects)


#: What is asked a second time in the same session: a passing error can have any code, also one that
#: blames the request or its key.
_AGAIN = (Remedy.RETRY, Remedy.GIVE_UP)


class Hsm:
    """The token of this process. Open, log in, then perform requests one after another."""

    def __init__(self) -> None:
        self._token: Any = None
        self._session: Any = None
        self._profile: profiles.Profile | None = None
        self._ring: KeyRing | None = None
        self._presence: Presence | None = None

    def open(self, request: Open) -> TokenInfo:
        """Load the module and find the token.

        Raises `ModuleUnusable`, `TokenNotFound`, `TokenUnavailable`; `ConfigInvalid` for a profile
        that there is not.
        """
        try:
            self._profile = profiles.load(request.profile)
        except KeyError:
            raise errors.ConfigInvalid(f"There is no profile {request.profile!r}.") from None
        self._token = module.find_token(module.load(request.module), request)
        try:
            # What cannot be opened is found out here, where it costs no try of the PIN.
            self._token.open(rw=True).close()
        except PKCS11Error as error:
            raise errors.TokenUnavailable("The token does not open a session.") from error
        return module.info(self._token)

    def login(self, request: Login) -> Done:
        """Open the one session of this process as the token's user; anew, if there was one.

        Raises what `keycustody.token.hsm.login.logged_in` does.
        """
        profile, token = self._profile, self._token
        if profile is None:
            raise errors.InternalError("Login comes after open.")
        if self._session is not None:
            login.left(self._session)
            self._session = None
        self._session = login.logged_in(token, request)
        self._ring = KeyRing(self._session, profile)
        self._presence = Presence(token, self._session)
        return Done()

    def remedy(self, said: str) -> str:
        """Return what is to be done about a code; nothing about none."""
        overrides = {} if self._profile is None else self._profile.remedies
        return remedies.remedy(said, overrides).value if said else ""

    def perform(self, request: AnyRequest) -> AnyReply:
        """Do one request. Raises errors of `keycustody.errors`."""
        if isinstance(request, Open):
            return self.open(request)
        if isinstance(request, Login):
            return self.login(request)
        if self._session is None or self._presence is None:
            raise errors.InternalError("Nothing can be asked of a token before login.")
        if isinstance(request, ChangePin):
            return login.change_pin(self._session, request)
        try:
            try:
                return self._attempt(request, self._presence)
            except (PKCS11Error, errors.KeyNotTrusted) as error:
                again = not isinstance(error, PKCS11Error) or self.remedy(code(error)) in _AGAIN
                if not again or isinstance(request, NOT_IDEMPOTENT):
                    raise
            return self._attempt(request, self._presence)
        except PKCS11Error as error:
            raise failure(error, Remedy(self.remedy(code(error)))) from error

    def _attempt(self, request: _Work, presence: Presence) -> AnyReply:
        assert self._ring is not None
        assert self._profile is not None
        if isinstance(request, _LOOKS):
            presence.check()
        try:
            reply = self._perform(request, self._ring, self._profile)
        except errors.KeyNotFound:
            presence.confirm_missing()
            raise
        if isinstance(request, Scan) and isinstance(reply, Scanned):
            presence.saw(something=bool(reply.objects))
        return reply

    def _perform(self, request: _Work, ring: KeyRing, profile: profiles.Profile) -> AnyReply:
        session = self._session
        match request:
            case Sign():
                signing = algorithms.signature(request.algorithm)
                return Outputs(
                    ring.use(
                        request.key,
                        lambda key: operations.sign(key, signing, request.inputs, profile),
                    )
                )
            case Agree():
                return Outputs(
                    ring.use(
                        request.key, lambda key: operations.agree(key, request.points, profile)
                    )
                )
            case Decrypt():
                scheme = algorithms.decryption(request.algorithm)
                return Outputs(
                    ring.use(
                        request.key,
                        lambda key: operations.decrypt(key, scheme, request.ciphertexts, profile),
                    )
                )
            case GenerateSessionKey() | UnwrapSessionKeys() | RewrapSessionKeys():
                return ring.use(
                    request.key,
                    lambda key: session_keys.perform(key, request, ring, session, profile),
                )
        return self._look_after(request, ring, profile)

    def _look_after(
        self,
        request: Probe
        | Scan
        | CreateVersion
        | Witness
        | SelfTest
        | DestroyObjects
        | Inspect
        | WriteData,
        ring: KeyRing,
        profile: profiles.Profile,
    ) -> AnyReply:
        session = self._session
        match request:
            case Probe():
                assert self._presence is not None
                self._presence.probe()
                return Done()
            case Scan():
                return provisioning.scan(session, profile)
            case CreateVersion():
                return provisioning.create_version(request, session, ring, profile)
            case Witness():
                # Asked of what has no record yet, so that another agent may be making it, too.
                made = ring.load(request.key, fresh=True)
                return Witnessed(witness.make(made, session, profile))
            case SelfTest():
                ring.renew(request.key)
                return Done()
            case DestroyObjects():
                return provisioning.destroy_objects(request, session)
            case Inspect():
                return provisioning.inspect(request, session, profile)
            case WriteData():
                return provisioning.write_data(request, session, profile)

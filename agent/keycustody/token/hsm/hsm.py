"""One open token: a method for what opens it, and `perform` for every other request of the api."""

from typing import Any

from pkcs11.exceptions import (
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    PKCS11Error,
    UserPinNotInitialized,
)

from keycustody import algorithms, errors
from keycustody.token import profiles
from keycustody.token.api import (
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
    RewrapSessionKeys,
    Scan,
    SelfTest,
    Sign,
    TokenInfo,
    UnwrapSessionKeys,
    Witness,
    Witnessed,
    WriteData,
)
from keycustody.token.hsm import module, operations, provisioning, session_keys, witness
from keycustody.token.hsm.failures import failure
from keycustody.token.hsm.keys import KeyRing
from keycustody.token.hsm.objects import MAPPER

_Work = (
    Sign
    | Agree
    | Decrypt
    | GenerateSessionKey
    | UnwrapSessionKeys
    | RewrapSessionKeys
    | Scan
    | CreateVersion
    | Witness
    | SelfTest
    | DestroyObjects
    | Inspect
    | WriteData
)
_REFUSED = (PinIncorrect, PinInvalid, PinLenRange)


class Hsm:
    """The token of this process. Open, log in, then perform requests one after another."""

    def __init__(self) -> None:
        self._token: Any = None
        self._session: Any = None
        self._profile: profiles.Profile | None = None
        self._ring: KeyRing | None = None

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
        """Open the one session of this process as the token's user.

        Raises `PinIncorrect`, also for a PIN that is locked or expired; `TokenNotProvisioned` if
        the token has none; `TokenUnavailable`.
        """
        profile, token = self._profile, self._token
        if profile is None or self._session is not None:
            raise errors.InternalError("Login comes once, after open.")
        try:
            pin = request.pin.value.decode("utf-8")
        except UnicodeDecodeError:
            # Without its cause, which holds the PIN.
            raise errors.PinIncorrect("The PIN is not UTF-8, which PKCS#11 requires.") from None
        try:
            self._session = token.open(rw=True, user_pin=pin, attribute_mapper=MAPPER)
        except _REFUSED as error:
            raise errors.PinIncorrect("The token refused the PIN.") from error
        except PinLocked as error:
            raise errors.PinIncorrect(
                "The token has locked its PIN after wrong ones; its security officer can unlock it."
            ) from error
        except PinExpired as error:
            raise errors.PinIncorrect("The PIN has expired; set a new one on the token.") from error
        except UserPinNotInitialized as error:
            raise errors.TokenNotProvisioned(
                "The token has no user PIN; run `keycustody token init`."
            ) from error
        except PKCS11Error as error:
            raise errors.TokenUnavailable("The token failed while logging in.") from error
        self._ring = KeyRing(self._session, profile)
        return Done()

    def change_pin(self, request: ChangePin) -> Done:
        """Set the PIN of the user who is logged in.

        Raises `PinIncorrect` if the old one is not the token's, `InvalidRequest` if the token does
        not take the new one, `TokenUnavailable`.
        """
        if self._session is None:
            raise errors.InternalError("A PIN is changed by who is logged in.")
        try:
            self._session.set_pin(request.old.value.decode(), request.new.value.decode())
        except PinIncorrect as error:
            raise errors.PinIncorrect("The token refused the PIN that is to be changed.") from error
        except (PinInvalid, PinLenRange) as error:
            raise errors.InvalidRequest(
                "The token does not take such a PIN: too short, too long, or of other characters."
            ) from error
        except PKCS11Error as error:
            raise errors.TokenUnavailable("The token failed while its PIN was changed.") from error
        return Done()

    def perform(self, request: AnyRequest) -> AnyReply:
        """Do one request. Raises errors of `keycustody.errors`."""
        if isinstance(request, Open):
            return self.open(request)
        if isinstance(request, Login):
            return self.login(request)
        if isinstance(request, ChangePin):
            return self.change_pin(request)
        if self._ring is None or self._profile is None:
            raise errors.InternalError("Nothing can be asked of a token before login.")
        try:
            return self._perform(request, self._ring, self._profile)
        except PKCS11Error as error:
            raise failure(error) from error

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
        request: Scan | CreateVersion | Witness | SelfTest | DestroyObjects | Inspect | WriteData,
        ring: KeyRing,
        profile: profiles.Profile,
    ) -> AnyReply:
        session = self._session
        match request:
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

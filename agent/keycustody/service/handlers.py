"""Handlers: message to plain values, one use case, and back. Nothing is decided here.

Each class is one service of proto/keycustody/v1; its methods have the names of the RPCs.
"""

# ruff: noqa: N802 - methods are named as their RPCs are

from collections.abc import Collection, Mapping

from google.protobuf.descriptor import ServiceDescriptor

import keycustody.v1.admin_service_pb2 as admin
import keycustody.v1.agreement_service_pb2 as agreements
import keycustody.v1.key_service_pb2 as keys
import keycustody.v1.session_key_service_pb2 as sessions
import keycustody.v1.signing_service_pb2 as signatures
from keycustody import __version__, wire
from keycustody.algorithms import KEYS
from keycustody.config import LeaseSettings
from keycustody.custody import administration, agreement, lifecycle, listing, session_keys, signing
from keycustody.custody.keys.key import Key, rotate_by
from keycustody.custody.lifecycle import Change, Executor
from keycustody.custody.listing import Overview
from keycustody.custody.operation import Caller, Office
from keycustody.custody.reload import Follows, reload
from keycustody.errors import InvalidRequest
from keycustody.token.api import Delivered, Fault
from keycustody.v1.common_pb2 import ItemError, Lease


class KeyHandlers:
    """keycustody.v1.KeyService"""

    def __init__(self, office: Office) -> None:
        self._office = office

    async def ListKeys(
        self, request: keys.ListKeysRequest, caller: Caller
    ) -> keys.ListKeysResponse:
        found = await listing.list_keys(self._office.desk, caller)
        return keys.ListKeysResponse(keys=[_key(key) for key in found])

    async def GetKey(self, request: keys.GetKeyRequest, caller: Caller) -> keys.GetKeyResponse:
        return keys.GetKeyResponse(
            key=_key(await listing.get_key(self._office.desk, caller, request.key))
        )


class SigningHandlers:
    """keycustody.v1.SigningService"""

    def __init__(self, office: Office) -> None:
        self._office = office

    async def Sign(
        self, request: signatures.SignRequest, caller: Caller
    ) -> signatures.SignResponse:
        order = signing.Order(
            request.key,
            request.version,
            request.algorithm,
            request.ecdsa_encoding,
            request.items,
            _sign_item,
        )
        signed = await signing.sign(self._office.desk, caller, order)
        return signatures.SignResponse(
            version=signed.version,
            results=[
                signatures.SignResult(error=_error(result))
                if isinstance(result, Fault)
                else signatures.SignResult(signature=result)
                for result in signed.results
            ],
        )


class AgreementHandlers:
    """keycustody.v1.AgreementService"""

    def __init__(self, office: Office) -> None:
        self._office = office

    async def Agree(
        self, request: agreements.AgreeRequest, caller: Caller
    ) -> agreements.AgreeResponse:
        answered = await agreement.agree(
            self._office.desk, caller, request.key, request.version, request.peer_points
        )
        return agreements.AgreeResponse(
            version=answered.version,
            results=[
                agreements.AgreeResult(error=_error(result))
                if isinstance(result, Fault)
                else agreements.AgreeResult(shared_secret=result)
                for result in answered.results
            ],
        )

    async def Decrypt(
        self, request: agreements.DecryptRequest, caller: Caller
    ) -> agreements.DecryptResponse:
        answered = await agreement.decrypt(
            self._office.desk,
            caller,
            request.key,
            request.version,
            request.algorithm,
            request.ciphertexts,
        )
        return agreements.DecryptResponse(
            version=answered.version,
            results=[
                agreements.DecryptResult(error=_error(result))
                if isinstance(result, Fault)
                else agreements.DecryptResult(plaintext=result)
                for result in answered.results
            ],
        )


class SessionKeyHandlers:
    """keycustody.v1.SessionKeyService"""

    def __init__(self, office: Office) -> None:
        self._office = office

    async def GenerateSessionKey(
        self, request: sessions.GenerateSessionKeyRequest, caller: Caller
    ) -> sessions.GenerateSessionKeyResponse:
        generated = await session_keys.generate(
            self._office.desk,
            caller,
            request.key,
            request.suite,
            request.context,
            session_keys.Client(request.client_point, request.accept_plain),
        )
        return sessions.GenerateSessionKeyResponse(
            version=generated.version,
            wrapped_key=generated.wrapped,
            delivered=_delivered(generated.delivered),
            lease=_lease(generated.lease),
        )

    async def UnwrapSessionKeys(
        self, request: sessions.UnwrapSessionKeysRequest, caller: Caller
    ) -> sessions.UnwrapSessionKeysResponse:
        order = session_keys.Order(
            request.key, request.version, request.suite, request.context, request.wrapped_keys
        )
        client = session_keys.Client(request.client_point, request.accept_plain)
        unwrapped = await session_keys.unwrap(self._office.desk, caller, order, client)
        return sessions.UnwrapSessionKeysResponse(
            results=[
                sessions.UnwrapResult(error=_error(result))
                if isinstance(result, Fault)
                else sessions.UnwrapResult(delivered=_delivered(result))
                for result in unwrapped.results
            ],
            lease=_lease(unwrapped.lease),
        )

    async def RewrapSessionKeys(
        self, request: sessions.RewrapSessionKeysRequest, caller: Caller
    ) -> sessions.RewrapSessionKeysResponse:
        order = session_keys.Order(
            request.key, request.version, request.suite, request.context, request.wrapped_keys
        )
        rewrapped = await session_keys.rewrap(self._office.desk, caller, order)
        return sessions.RewrapSessionKeysResponse(
            version=rewrapped.version,
            results=[
                sessions.RewrapResult(error=_error(result))
                if isinstance(result, Fault)
                else sessions.RewrapResult(wrapped_key=result)
                for result in rewrapped.results
            ],
        )


class AdminHandlers:
    """keycustody.v1.AdminService"""

    def __init__(
        self, office: Office, overview: Overview, agent: Follows, executor: Executor
    ) -> None:
        self._office = office
        self._overview = overview
        self._agent = agent
        self._executor = executor

    async def ChangeKeys(
        self, request: admin.ChangeKeysRequest, caller: Caller
    ) -> admin.ChangeKeysResponse:
        report = await administration.change_keys(
            self._office.desk, caller, self._executor, _order(request)
        )
        return admin.ChangeKeysResponse(
            steps=[
                admin.KeyStep(
                    action=step.action,
                    key=step.key,
                    version=step.version,
                    text=step.text,
                    done=step.done,
                )
                for step in report.steps
            ],
            findings=[
                admin.KeyFinding(
                    kind=finding.kind,
                    key=finding.key,
                    version=finding.version,
                    text=finding.text,
                )
                for finding in report.findings
            ],
        )

    async def GetStatus(
        self, request: admin.GetStatusRequest, caller: Caller
    ) -> admin.GetStatusResponse:
        status = await listing.status(self._office.desk, caller, self._overview)
        return admin.GetStatusResponse(
            agent_version=__version__,
            uptime_seconds=int(status.uptime),
            token=admin.TokenStatus(
                label=status.token.label,
                serial=status.token.serial,
                model=f"{status.token.manufacturer} {status.token.model}",
                profile=status.profile,
                delivery=status.delivery,
                workers_wanted=status.workers_wanted,
                workers_ready=status.workers_ready,
                restarts=status.restarts,
                scan_age_seconds=status.scan_age,
                delivery_key=status.delivery_key,
            ),
            keys=[_key_status(key, status.unhealthy) for key in status.keys],
            audit=admin.AuditStatus(
                sequence=status.audit.sequence,
                head=status.audit.hash,
                covered=status.signed.covered,
                unsigned_records=status.signed.unsigned,
                unsigned_seconds=status.signed.seconds,
                verifier_key=status.audit_key,
                head_age_seconds=status.signed.age,
            ),
            findings=status.findings,
            rules=status.rules,
        )

    async def Reload(self, request: admin.ReloadRequest, caller: Caller) -> admin.ReloadResponse:
        reloaded = await reload(self._office, caller, self._agent)
        return admin.ReloadResponse(rules=reloaded.rules, waiting=reloaded.waiting)


def services(office: Office) -> Mapping[ServiceDescriptor, object]:
    """Return what every principal is offered."""
    return {
        keys.DESCRIPTOR.services_by_name["KeyService"]: KeyHandlers(office),
        signatures.DESCRIPTOR.services_by_name["SigningService"]: SigningHandlers(office),
        agreements.DESCRIPTOR.services_by_name["AgreementService"]: AgreementHandlers(office),
        sessions.DESCRIPTOR.services_by_name["SessionKeyService"]: SessionKeyHandlers(office),
    }


def admin_services(
    office: Office, overview: Overview, agent: Follows, executor: Executor
) -> Mapping[ServiceDescriptor, object]:
    """Return what operators are offered, on their own socket."""
    handlers = AdminHandlers(office, overview, agent, executor)
    return {admin.DESCRIPTOR.services_by_name["AdminService"]: handlers}


def _order(request: admin.ChangeKeysRequest) -> administration.Order:
    which = request.WhichOneof("change")
    if which is None:
        return administration.Order("change", "", 0, lambda: _change(request), request.dry_run)
    asked = getattr(request, which)
    key, version = getattr(asked, "key", ""), getattr(asked, "version", 0)
    return administration.Order(which, key, version, lambda: _change(request), request.dry_run)


def _change(request: admin.ChangeKeysRequest) -> Change:
    match request.WhichOneof("change"):
        case "apply":
            return lifecycle.Apply()
        case "rotate":
            return lifecycle.Rotate(request.rotate.key)
        case "retire":
            return lifecycle.Retire(request.retire.key, request.retire.version)
        case "revoke":
            asked = request.revoke
            return lifecycle.Revoke(asked.key, asked.version, asked.reason)
        case "destroy":
            wanted = request.destroy
            return lifecycle.Destroy(wanted.key, wanted.version, wanted.confirm)
        case "adopt":
            found = request.adopt
            return lifecycle.Adopt(found.key, found.id, found.version)
    raise InvalidRequest("The request names no change.")


def _sign_item(item: signatures.SignItem) -> signing.Item:
    match item.WhichOneof("input"):
        case "message":
            return signing.Item(item.message, prehashed=False)
        case "digest":
            return signing.Item(item.digest, prehashed=True)
    return signing.Item(b"", prehashed=False, missing=True)


def _error(fault: Fault) -> ItemError:
    return wire.item_error(fault.code, fault.message)


def _key(key: Key) -> keys.Key:
    return keys.Key(
        name=key.name,
        purpose=key.declared.purpose,
        algorithm=key.declared.algorithm,
        algorithms=key.algorithms,
        prehashed=key.declared.prehashed,
        versions=[
            keys.KeyVersion(
                version=version.number,
                state=version.state,
                public_key=version.public_key,
                created=version.created,
            )
            for version in key.servable
        ],
        current=0 if key.current is None else key.current.number,
        revoked=[version.number for version in key.revoked],
    )


def _key_status(key: Key, unhealthy: Collection[str]) -> admin.KeyStatus:
    return admin.KeyStatus(
        name=key.name,
        purpose=key.declared.purpose,
        algorithm=key.declared.algorithm,
        state=key.condition,
        versions=[version.number for version in key.servable],
        unhealthy=[version.number for version in key.servable if version.ref.label in unhealthy],
        owner=key.declared.owner,
        details=[
            admin.VersionStatus(
                version=version.number,
                state=version.state,
                created=version.created,
                waiting=version.waiting,
                weaker=version.weaker,
            )
            for version in key.versions
        ],
        rotate_by=rotate_by(key),
        algorithm_status=KEYS[key.declared.algorithm].status,
    )


def _delivered(delivered: Delivered) -> sessions.DeliveredKey:
    if delivered.plain:
        return sessions.DeliveredKey(plain=delivered.plain)
    return sessions.DeliveredKey(sealed=delivered.sealed, delivery_point=delivered.delivery_point)


def _lease(lease: LeaseSettings) -> Lease:
    return Lease(seconds=lease.seconds, messages=lease.messages, bytes=lease.bytes)

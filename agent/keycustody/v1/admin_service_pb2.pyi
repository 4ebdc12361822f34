from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("agent_version", "uptime_seconds", "token", "keys", "audit", "findings", "rules")
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    AUDIT_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    agent_version: str
    uptime_seconds: int
    token: TokenStatus
    keys: _containers.RepeatedCompositeFieldContainer[KeyStatus]
    audit: AuditStatus
    findings: _containers.RepeatedScalarFieldContainer[str]
    rules: str
    def __init__(self, agent_version: _Optional[str] = ..., uptime_seconds: _Optional[int] = ..., token: _Optional[_Union[TokenStatus, _Mapping]] = ..., keys: _Optional[_Iterable[_Union[KeyStatus, _Mapping]]] = ..., audit: _Optional[_Union[AuditStatus, _Mapping]] = ..., findings: _Optional[_Iterable[str]] = ..., rules: _Optional[str] = ...) -> None: ...

class TokenStatus(_message.Message):
    __slots__ = ("label", "serial", "model", "profile", "delivery", "workers_wanted", "workers_ready", "restarts", "scan_age_seconds")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    WORKERS_WANTED_FIELD_NUMBER: _ClassVar[int]
    WORKERS_READY_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    SCAN_AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    label: str
    serial: str
    model: str
    profile: str
    delivery: str
    workers_wanted: int
    workers_ready: int
    restarts: int
    scan_age_seconds: float
    def __init__(self, label: _Optional[str] = ..., serial: _Optional[str] = ..., model: _Optional[str] = ..., profile: _Optional[str] = ..., delivery: _Optional[str] = ..., workers_wanted: _Optional[int] = ..., workers_ready: _Optional[int] = ..., restarts: _Optional[int] = ..., scan_age_seconds: _Optional[float] = ...) -> None: ...

class KeyStatus(_message.Message):
    __slots__ = ("name", "purpose", "algorithm", "state", "versions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    purpose: str
    algorithm: str
    state: str
    versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., purpose: _Optional[str] = ..., algorithm: _Optional[str] = ..., state: _Optional[str] = ..., versions: _Optional[_Iterable[int]] = ...) -> None: ...

class AuditStatus(_message.Message):
    __slots__ = ("sequence", "head")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    head: str
    def __init__(self, sequence: _Optional[int] = ..., head: _Optional[str] = ...) -> None: ...

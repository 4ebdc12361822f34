from keycustody.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GenerateSessionKeyRequest(_message.Message):
    __slots__ = ("key", "suite", "context", "client_point", "accept_plain")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KEY_FIELD_NUMBER: _ClassVar[int]
    SUITE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_POINT_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_PLAIN_FIELD_NUMBER: _ClassVar[int]
    key: str
    suite: int
    context: _containers.ScalarMap[str, str]
    client_point: bytes
    accept_plain: bool
    def __init__(self, key: _Optional[str] = ..., suite: _Optional[int] = ..., context: _Optional[_Mapping[str, str]] = ..., client_point: _Optional[bytes] = ..., accept_plain: bool = ...) -> None: ...

class GenerateSessionKeyResponse(_message.Message):
    __slots__ = ("version", "wrapped_key", "delivered", "lease")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_KEY_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    version: int
    wrapped_key: bytes
    delivered: DeliveredKey
    lease: _common_pb2.Lease
    def __init__(self, version: _Optional[int] = ..., wrapped_key: _Optional[bytes] = ..., delivered: _Optional[_Union[DeliveredKey, _Mapping]] = ..., lease: _Optional[_Union[_common_pb2.Lease, _Mapping]] = ...) -> None: ...

class DeliveredKey(_message.Message):
    __slots__ = ("sealed", "plain", "delivery_point")
    SEALED_FIELD_NUMBER: _ClassVar[int]
    PLAIN_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_POINT_FIELD_NUMBER: _ClassVar[int]
    sealed: bytes
    plain: bytes
    delivery_point: bytes
    def __init__(self, sealed: _Optional[bytes] = ..., plain: _Optional[bytes] = ..., delivery_point: _Optional[bytes] = ...) -> None: ...

class UnwrapSessionKeysRequest(_message.Message):
    __slots__ = ("key", "suite", "items", "client_point", "accept_plain")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SUITE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_POINT_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_PLAIN_FIELD_NUMBER: _ClassVar[int]
    key: str
    suite: int
    items: _containers.RepeatedCompositeFieldContainer[WrappedKey]
    client_point: bytes
    accept_plain: bool
    def __init__(self, key: _Optional[str] = ..., suite: _Optional[int] = ..., items: _Optional[_Iterable[_Union[WrappedKey, _Mapping]]] = ..., client_point: _Optional[bytes] = ..., accept_plain: bool = ...) -> None: ...

class WrappedKey(_message.Message):
    __slots__ = ("version", "wrapped_key", "context")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_KEY_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    version: int
    wrapped_key: bytes
    context: _containers.ScalarMap[str, str]
    def __init__(self, version: _Optional[int] = ..., wrapped_key: _Optional[bytes] = ..., context: _Optional[_Mapping[str, str]] = ...) -> None: ...

class UnwrapSessionKeysResponse(_message.Message):
    __slots__ = ("results", "lease")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[UnwrapResult]
    lease: _common_pb2.Lease
    def __init__(self, results: _Optional[_Iterable[_Union[UnwrapResult, _Mapping]]] = ..., lease: _Optional[_Union[_common_pb2.Lease, _Mapping]] = ...) -> None: ...

class UnwrapResult(_message.Message):
    __slots__ = ("delivered", "error")
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    delivered: DeliveredKey
    error: _common_pb2.ItemError
    def __init__(self, delivered: _Optional[_Union[DeliveredKey, _Mapping]] = ..., error: _Optional[_Union[_common_pb2.ItemError, _Mapping]] = ...) -> None: ...

from keycustody.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AgreeRequest(_message.Message):
    __slots__ = ("key", "version", "peer_points")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PEER_POINTS_FIELD_NUMBER: _ClassVar[int]
    key: str
    version: int
    peer_points: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, key: _Optional[str] = ..., version: _Optional[int] = ..., peer_points: _Optional[_Iterable[bytes]] = ...) -> None: ...

class AgreeResponse(_message.Message):
    __slots__ = ("version", "results")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    version: int
    results: _containers.RepeatedCompositeFieldContainer[AgreeResult]
    def __init__(self, version: _Optional[int] = ..., results: _Optional[_Iterable[_Union[AgreeResult, _Mapping]]] = ...) -> None: ...

class AgreeResult(_message.Message):
    __slots__ = ("shared_secret", "error")
    SHARED_SECRET_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    shared_secret: bytes
    error: _common_pb2.ItemError
    def __init__(self, shared_secret: _Optional[bytes] = ..., error: _Optional[_Union[_common_pb2.ItemError, _Mapping]] = ...) -> None: ...

class DecryptRequest(_message.Message):
    __slots__ = ("key", "version", "algorithm", "ciphertexts")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXTS_FIELD_NUMBER: _ClassVar[int]
    key: str
    version: int
    algorithm: str
    ciphertexts: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, key: _Optional[str] = ..., version: _Optional[int] = ..., algorithm: _Optional[str] = ..., ciphertexts: _Optional[_Iterable[bytes]] = ...) -> None: ...

class DecryptResponse(_message.Message):
    __slots__ = ("version", "results")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    version: int
    results: _containers.RepeatedCompositeFieldContainer[DecryptResult]
    def __init__(self, version: _Optional[int] = ..., results: _Optional[_Iterable[_Union[DecryptResult, _Mapping]]] = ...) -> None: ...

class DecryptResult(_message.Message):
    __slots__ = ("plaintext", "error")
    PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    plaintext: bytes
    error: _common_pb2.ItemError
    def __init__(self, plaintext: _Optional[bytes] = ..., error: _Optional[_Union[_common_pb2.ItemError, _Mapping]] = ...) -> None: ...

from keycustody.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EcdsaEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ECDSA_ENCODING_UNSPECIFIED: _ClassVar[EcdsaEncoding]
    ECDSA_ENCODING_DER: _ClassVar[EcdsaEncoding]
    ECDSA_ENCODING_RAW: _ClassVar[EcdsaEncoding]
ECDSA_ENCODING_UNSPECIFIED: EcdsaEncoding
ECDSA_ENCODING_DER: EcdsaEncoding
ECDSA_ENCODING_RAW: EcdsaEncoding

class SignRequest(_message.Message):
    __slots__ = ("key", "version", "algorithm", "ecdsa_encoding", "items")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    ECDSA_ENCODING_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    key: str
    version: int
    algorithm: str
    ecdsa_encoding: EcdsaEncoding
    items: _containers.RepeatedCompositeFieldContainer[SignItem]
    def __init__(self, key: _Optional[str] = ..., version: _Optional[int] = ..., algorithm: _Optional[str] = ..., ecdsa_encoding: _Optional[_Union[EcdsaEncoding, str]] = ..., items: _Optional[_Iterable[_Union[SignItem, _Mapping]]] = ...) -> None: ...

class SignItem(_message.Message):
    __slots__ = ("message", "digest")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    message: bytes
    digest: bytes
    def __init__(self, message: _Optional[bytes] = ..., digest: _Optional[bytes] = ...) -> None: ...

class SignResponse(_message.Message):
    __slots__ = ("version", "results")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    version: int
    results: _containers.RepeatedCompositeFieldContainer[SignResult]
    def __init__(self, version: _Optional[int] = ..., results: _Optional[_Iterable[_Union[SignResult, _Mapping]]] = ...) -> None: ...

class SignResult(_message.Message):
    __slots__ = ("signature", "error")
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    signature: bytes
    error: _common_pb2.ItemError
    def __init__(self, signature: _Optional[bytes] = ..., error: _Optional[_Union[_common_pb2.ItemError, _Mapping]] = ...) -> None: ...

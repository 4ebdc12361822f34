"""Makes state.json and audit.json, with the standard library's JSON."""

import hashlib
import json
from typing import Any

from tests.vectors.making.spec import Json

RECORD: dict[str, Any] = {
    "v": 1,
    "name": "release",
    "version": 2,
    "id": "00112233445566778899aabbccddeeff",
    "purpose": "sign",
    "algorithm": "EC_P256",
    "public_sha256": hashlib.sha256(b"a public key").hexdigest(),
    "witness": "",
    "state": "active",
    "time": "2026-01-02T03:04:05Z",
    "reason": "",
}

ADOPTED: dict[str, Any] = {
    **RECORD,
    "v": 2,
    "id": "01",
    "public_sha256": hashlib.sha256(b"\x30\x03\x01\x02\x03").hexdigest(),
    "label": "Old Signing Key (2019)",
    "weaker": ["ALLOWED_MECHANISMS=null", "EXTRACTABLE=true"],
    "public_key": "3003010203",
}

LINE: dict[str, Any] = {
    "v": 1,
    "seq": 1,
    "time": "2026-01-02T03:04:05.000006Z",
    "request": "0123456789abcdef0123456789abcdef",
    "principal": "billing",
    "via": "socket",
    "operation": "unwrap",
    "key": "invoices",
    "version": 1,
    "algorithm": "",
    "context": {"customer": 'M\u00fcller "& S\u00f6hne"\n\x01\x7f', "tenant": "42"},
    "items": [f"{hashlib.sha256(b'wrapped').hexdigest()}:OK"],
    "rules": hashlib.sha256(b"rules").hexdigest(),
    "grant": "billing-reads",
    "result": "OK",
    "detail": "",
    "count": 1,
    "microseconds": 412,
    "prev": "0" * 64,
}


def encode(value: dict[str, Any]) -> str:
    """docs/format.md, 1: the one encoding of JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def state_file() -> Json:
    good = encode(RECORD)
    retired = encode({**RECORD, "state": "retired", "time": "2025-01-01T00:00:00Z"})
    revoked = encode({**RECORD, "state": "revoked", "reason": "laptop \u201clost\u201d"})
    swapped = encode(dict(reversed(RECORD.items())))
    adopted = encode(ADOPTED)
    positive = {
        "one record": [good],
        "the worst counts, whenever it was written": [retired, good],
        "in any order": [good, revoked, retired],
        "said twice": [good, good],
        "of two agents' witnesses": [
            encode({**RECORD, "witness": "00" * 72}),
            encode({**RECORD, "witness": "11" * 72}),
        ],
        "an adopted key": [adopted],
        "an adopted key, revoked": [adopted, encode({**ADOPTED, "state": "revoked"})],
    }
    states = ["active", "retired", "revoked", "active", "active", "active", "revoked"]
    negative = {
        "white space": [good.replace(",", ", ", 1)],
        "another order": [swapped],
        "a member more": [good[:-1] + ',"note":""}'],
        "a member twice": [good[:-1] + ',"reason":""}'],
        "a member less": [encode({k: v for k, v in RECORD.items() if k != "algorithm"})],
        "an escape that need not be": [good.replace("release", "\\u0072elease")],
        "an unknown state": [encode({**RECORD, "state": "dormant"})],
        "version 3 of the format": [encode({**RECORD, "v": 3})],
        "format 2 without its members": [encode({**RECORD, "v": 2})],
        "format 1 with members of format 2": [encode({**ADOPTED, "v": 1})],
        "a short id that was not adopted": [encode({**RECORD, "id": "01"})],
        "an id of half a byte": [encode({**ADOPTED, "id": "012"})],
        "weaknesses out of order": [encode({**ADOPTED, "weaker": ADOPTED["weaker"][::-1]})],
        "a weakness twice": [encode({**ADOPTED, "weaker": ADOPTED["weaker"][:1] * 2})],
        "adopted without a public key": [encode({**ADOPTED, "public_key": ""})],
        "weaker in one record only": [adopted, encode({**ADOPTED, "weaker": []})],
        "a number as text": [good.replace('"version":2', '"version":"2"')],
        "no JSON": ["active"],
        "nothing": [""],
        "over 4,096 bytes": [encode({**RECORD, "reason": "r" * 4096})],
        "of two public keys": [good, encode({**RECORD, "public_sha256": "0" * 64})],
        "a witness of another length": [encode({**RECORD, "witness": "00" * 71})],
        "of two versions": [good, encode({**RECORD, "version": 3})],
        "of two purposes": [good, encode({**RECORD, "purpose": "agree"})],
    }
    return {
        "format": "state",
        "read": [
            {"id": name, "records": _hex(records), "state": state}
            for (name, records), state in zip(positive.items(), states, strict=True)
        ],
        "refuse": [
            {"id": name, "records": _hex(records), "error": "KEY_NOT_TRUSTED"}
            for name, records in negative.items()
        ],
    }


def audit_file() -> Json:
    first, second, third = lines = _chain(3)
    edited = first.replace('"tenant":"42"', '"tenant":"43"')
    negative: dict[str, tuple[list[str], int]] = {
        "an edited line": ([edited, second, third], 2),
        "a line dropped": ([first, third], 2),
        "the first line dropped": ([second, third], 1),
        "lines swapped": ([second, first, third], 1),
        "a line twice": ([first, first, second], 2),
        "white space": ([first.replace(",", ", ", 1), second], 1),
        "a member more": ([first[:-1] + ',"note":""}', second], 1),
        "a number that does not begin at 1": ([encode({**LINE, "seq": 2})], 1),
        "a first line that continues another": ([encode({**LINE, "prev": "1" * 64})], 1),
        "version 2 of the format": ([encode({**LINE, "v": 2})], 1),
        "no JSON": ([first, "OK"], 2),
    }
    return {
        "format": "audit",
        "verify": [
            {
                "id": f"{count} lines",
                "lines": _hex(lines[:count]),
                "head": hashlib.sha256(lines[count - 1].encode()).hexdigest(),
            }
            for count in (1, 2, 3)
        ],
        "refuse": [
            {"id": name, "lines": _hex(found), "line": number, "error": "AUDIT_CHAIN_BROKEN"}
            for name, (found, number) in negative.items()
        ],
    }


def _chain(count: int) -> list[str]:
    lines: list[str] = []
    for seq in range(1, count + 1):
        prev = hashlib.sha256(lines[-1].encode()).hexdigest() if lines else "0" * 64
        lines.append(encode({**LINE, "seq": seq, "prev": prev}))
    return lines


def _hex(texts: list[str]) -> list[str]:
    return [text.encode().hex() for text in texts]

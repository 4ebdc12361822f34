"""Makes wrapped_key.json."""

import hmac

from tests.vectors.making.spec import (
    TENANT,
    Json,
    Pairs,
    aes_key,
    context_hash,
    encode_context,
    flip,
    mac_key,
    made,
    tag_binding,
    wrap,
)


def wrapped_key_file() -> Json:
    positive: list[tuple[str, str, int, Pairs]] = [
        ("a context of two pairs", "orders", 1, TENANT),
        ("the empty context", "orders", 1, []),
        ("another version", "orders", 2, TENANT),
        ("the shortest name", "o", 1, TENANT),
        ("the longest name and the highest version", "a0._-" * 12 + "zzzz", 2**32 - 1, TENANT),
    ]
    valid = [wrapped_key_vector(*vector) for vector in positive]
    first = valid[0]
    wrapped = bytes.fromhex(first["wrapped"])
    no_kw = bytes.fromhex(first["kw"])[:-1] + bytes([wrapped[39] ^ 1])
    context = encode_context(TENANT)
    honest_tag = hmac.digest(
        mac_key("orders", 1), tag_binding(1, b"orders", 1, context, no_kw), "sha256"
    )
    changes: list[tuple[str, Json]] = [
        ("another key name", {"key": "orderz"}),
        ("another version", {"version": 2}),
        ("another context", {"context_hash": context_hash(encode_context([])).hex()}),
        ("another HMAC key", {"mac_key": mac_key("other", 1).hex()}),
        ("the first bit of KW", {"wrapped": flip(wrapped, 0).hex()}),
        ("the last bit of KW", {"wrapped": flip(wrapped, 39).hex()}),
        ("the first bit of the tag", {"wrapped": flip(wrapped, 40).hex()}),
        ("the last bit of the tag", {"wrapped": flip(wrapped, 71).hex()}),
        ("a tag of zeros", {"wrapped": (wrapped[:40] + bytes(32)).hex()}),
        ("the tag of another wrapped key", {"wrapped": first["kw"] + valid[1]["tag"]}),
        ("KW and tag exchanged", {"wrapped": (wrapped[32:] + wrapped[:32]).hex()}),
        ("a good tag over a KW that does not unwrap", {"wrapped": (no_kw + honest_tag).hex()}),
        ("a good tag, another AES key", {"aes_key": aes_key("other", 1).hex()}),
        ("no bytes", {"wrapped": ""}),
        ("KW alone", {"wrapped": first["kw"]}),
        ("71 bytes", {"wrapped": wrapped[:-1].hex()}),
        ("73 bytes", {"wrapped": (wrapped + b"\0").hex()}),
    ]
    asked = ("suite", "key", "version", "context_hash", "aes_key", "mac_key", "wrapped")
    return {
        "format": "wrapped key",
        "unwrap": valid,
        "refuse": [
            {
                "id": name,
                **{member: change.get(member, first[member]) for member in asked},
                "error": "WRAPPED_KEY_REJECTED",
            }
            for name, change in changes
        ],
    }


def wrapped_key_vector(name: str, key: str, version: int, pairs: Pairs) -> Json:
    session_key = made(f"session key: {name}")
    context = encode_context(pairs)
    wrapped = wrap(session_key, key, version, context)
    return {
        "id": name,
        "suite": 1,
        "key": key,
        "version": version,
        "context": pairs,
        "context_hash": context_hash(context).hex(),
        "aes_key": aes_key(key, version).hex(),
        "mac_key": mac_key(key, version).hex(),
        "session_key": session_key.hex(),
        "kw": wrapped[:40].hex(),
        "binding": tag_binding(1, key.encode(), version, context, wrapped[:40]).hex(),
        "tag": wrapped[40:].hex(),
        "wrapped": wrapped.hex(),
    }

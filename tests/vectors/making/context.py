"""Makes context.json."""

from tests.vectors.making.spec import TENANT, Json, Pairs, context_hash, encode_context, raw_context


def context_file() -> Json:
    filler: Pairs = [(f"{index:02}", "v" * 1024) for index in range(7)]
    room = 8192 - len(encode_context([*filler, ("last", "")]))
    positive: list[tuple[str, Pairs]] = [
        ("empty", []),
        ("one pair", [("tenant", "42")]),
        ("the shift of a boundary, one way", [("a", "bc")]),
        ("the shift of a boundary, the other way", [("ab", "c")]),
        ("an empty value", [("flag", "")]),
        ("given unsorted", [("tenant", "42"), ("purpose", "export")]),
        ("a prefix sorts first", [("ab", "2"), ("a", "1")]),
        ("upper case sorts before lower", [("b", "1"), ("B", "2")]),
        (
            "sorted by UTF-8 bytes, which is not the order of UTF-16 units",
            [("\U00010000", "beyond the BMP"), ("\uff5e", "within it")],
        ),
        (
            "no normalisation: two keys that look alike",
            [("\u00e9", "composed"), ("e\u0301", "decomposed")],
        ),
        ("control characters other than U+0000", [("\x01", "line\nline\x7f")]),
        ("the longest key", [("k" * 128, "v")]),
        ("the longest key, of two-byte characters", [("\u00e9" * 64, "v")]),
        ("the longest value", [("k", "v" * 1024)]),
        ("the most pairs", [(f"{index:02}", "") for index in range(64)]),
        ("the longest encoding", [*filler, ("last", "v" * room)]),
    ]
    unencodable: list[tuple[str, Pairs]] = [
        ("an empty key", [("", "v")]),
        ("a key of 129 bytes", [("k" * 129, "v")]),
        ("a key of 65 characters and 130 bytes", [("\u00e9" * 65, "v")]),
        ("a value of 1,025 bytes", [("k", "v" * 1025)]),
        ("65 pairs", [(f"{index:02}", "") for index in range(65)]),
        ("U+0000 in a key", [("a\0b", "v")]),
        ("U+0000 in a value", [("a", "\0")]),
        ("an encoding of 8,193 bytes", [*filler, ("last", "v" * (room + 1))]),
    ]
    return {
        "format": "context",
        "encode": [
            {
                "id": name,
                "pairs": pairs,
                "encoded": encode_context(pairs).hex(),
                "context_hash": context_hash(encode_context(pairs)).hex(),
            }
            for name, pairs in positive
        ],
        "refuse_to_encode": [
            {"id": name, "pairs": pairs, "error": "INVALID_CONTEXT"} for name, pairs in unencodable
        ],
        "refuse_to_decode": [
            {"id": name, "encoded": data.hex(), "error": "MALFORMED_ENVELOPE"}
            for name, data in bad_contexts()
        ],
    }


def bad_contexts() -> list[tuple[str, bytes]]:
    good = encode_context(TENANT)
    return [
        ("no bytes", b""),
        ("half a number of pairs", b"\0"),
        ("fewer pairs than stated", raw_context([(b"a", b"1")], count=2)),
        ("more pairs than stated", raw_context([(b"a", b"1"), (b"b", b"2")], count=1)),
        ("a byte after the last pair", good + b"\0"),
        ("a byte after no pairs", b"\0\0\0"),
        ("the last byte missing", good[:-1]),
        ("ends inside a length", raw_context([(b"a", b"1")])[:-2]),
        ("ends after a key", raw_context([(b"a", b"")])[:-2]),
        ("unsorted", raw_context([(b"b", b"1"), (b"a", b"2")])),
        ("a prefix after the longer key", raw_context([(b"ab", b"1"), (b"a", b"2")])),
        ("sorted as UTF-16", raw_context([("\U00010000".encode(), b""), ("\uff5e".encode(), b"")])),
        ("a repeated key", raw_context([(b"a", b"1"), (b"a", b"2")])),
        ("a repeated pair", raw_context([(b"a", b"1"), (b"a", b"1")])),
        ("an empty key", raw_context([(b"", b"1")])),
        ("an empty key before another", raw_context([(b"", b"1"), (b"a", b"2")])),
        ("U+0000 in a key", raw_context([(b"a\0", b"1")])),
        ("U+0000 in a value", raw_context([(b"a", b"\0")])),
        ("not UTF-8 in a key", raw_context([(b"\xff", b"1")])),
        ("not UTF-8 in a value", raw_context([(b"a", b"\x80")])),
        ("an overlong form", raw_context([(b"a", b"\xc0\xaf")])),
        ("U+0000 in its overlong form", raw_context([(b"a", b"\xc0\x80")])),
        ("a surrogate in UTF-8", raw_context([(b"a", b"\xed\xa0\x80")])),
        ("a surrogate pair in UTF-8", raw_context([(b"a", b"\xed\xa0\x80\xed\xb0\x80")])),
        ("beyond U+10FFFF", raw_context([(b"a", b"\xf4\x90\x80\x80")])),
        ("a character cut in half", raw_context([(b"a", b"\xc3")])),
        ("a key of 129 bytes", raw_context([(b"k" * 129, b"1")])),
        ("a value of 1,025 bytes", raw_context([(b"k", b"v" * 1025)])),
        ("65 pairs", raw_context([(f"{index:02}".encode(), b"") for index in range(65)])),
        ("65,535 pairs stated, none there", b"\xff\xff"),
        (
            "8,193 bytes",
            raw_context(
                [*((b"%02d" % index, b"v" * 1024) for index in range(7)), (b"x", b"v" * 976)]
            ),
        ),
    ]

"""State and audit records: anything that decodes is the one encoding of itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycustody.errors import AuditChainBroken, KeyNotTrusted
from keycustody.formats import audit, state
from keycustody.formats.audit import AuditRecord
from keycustody.formats.state import AdoptedRecord, State, StateRecord

TEXT = st.text(max_size=40)
NUMBER = st.integers(min_value=0, max_value=2**53)
RECORDS = st.builds(
    StateRecord,
    v=st.just(1),
    name=TEXT,
    version=st.integers(min_value=1, max_value=2**32 - 1),
    id=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    purpose=TEXT,
    algorithm=TEXT,
    public_sha256=st.from_regex(r"([0-9a-f]{64})?", fullmatch=True),
    witness=st.from_regex(r"([0-9a-f]{144})?", fullmatch=True),
    state=st.sampled_from(State),
    time=st.just("2026-01-02T03:04:05Z"),
    reason=TEXT,
)
ADOPTED = st.builds(
    AdoptedRecord,
    v=st.just(2),
    name=TEXT,
    version=st.integers(min_value=1, max_value=2**32 - 1),
    id=st.from_regex(r"([0-9a-f]{2}){1,255}", fullmatch=True),
    purpose=TEXT,
    algorithm=TEXT,
    public_sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    witness=st.just(""),
    state=st.sampled_from(State),
    time=st.just("2026-01-02T03:04:05Z"),
    reason=TEXT,
    label=TEXT,
    weaker=st.sets(TEXT, max_size=3).map(lambda texts: tuple(sorted(texts))),
    public_key=st.from_regex(r"([0-9a-f]{2}){1,40}", fullmatch=True),
)
LINES = st.builds(
    AuditRecord,
    v=st.just(1),
    seq=NUMBER,
    time=TEXT,
    request=TEXT,
    principal=TEXT,
    via=TEXT,
    operation=TEXT,
    key=TEXT,
    version=NUMBER,
    algorithm=TEXT,
    context=st.dictionaries(TEXT, TEXT, max_size=4),
    items=st.lists(TEXT, max_size=4),
    rules=TEXT,
    grant=TEXT,
    result=TEXT,
    detail=TEXT,
    count=NUMBER,
    microseconds=NUMBER,
    prev=TEXT,
)


@given(RECORDS | ADOPTED)
def test_a_state_record_comes_back(record: StateRecord) -> None:
    assert state.decode(state.encode(record)) == record


@given(LINES)
def test_an_audit_record_comes_back_on_one_line(record: AuditRecord) -> None:
    line = audit.encode(record)
    assert b"\n" not in line
    assert audit.decode(line) == record


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(KeyNotTrusted):
        state.decode(data)
    with pytest.raises(AuditChainBroken):
        audit.decode(data)


@given(RECORDS | ADOPTED, st.data())
def test_a_changed_byte_is_refused_or_is_another_record(
    record: StateRecord, data: st.DataObject
) -> None:
    encoded = bytearray(state.encode(record))
    place = data.draw(st.integers(min_value=0, max_value=len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(min_value=1, max_value=255))
    try:
        other = state.decode(bytes(encoded))
    except KeyNotTrusted:
        return
    assert other != record

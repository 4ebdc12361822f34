"""The stubs are what proto/ gives, and run on the oldest and the newest protobuf that we allow."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

#: Imports every stub and passes a message through bytes and back; run by other interpreters.
ROUND_TRIP = """
import sys
sys.path.insert(0, sys.argv[1])
import google.protobuf
from keycustody.v1 import admin_service_pb2, agreement_service_pb2, common_pb2, key_service_pb2
from keycustody.v1 import session_key_service_pb2, signing_service_pb2
request = signing_service_pb2.SignRequest(
    key="release",
    ecdsa_encoding=signing_service_pb2.ECDSA_ENCODING_RAW,
    items=[signing_service_pb2.SignItem(digest=bytes(32))],
)
assert signing_service_pb2.SignRequest.FromString(request.SerializeToString()) == request
wrapped = session_key_service_pb2.GenerateSessionKeyRequest(context={"tenant": "42"})
assert dict(type(wrapped).FromString(wrapped.SerializeToString()).context) == {"tenant": "42"}
print(google.protobuf.__version__)
"""


def protobuf_of(python: str) -> str:
    done = subprocess.run(
        [python, "-c", ROUND_TRIP, str(PROJECT / "agent")],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.partition(".")[0]


def test_stubs_run_on_protobuf_7() -> None:
    assert protobuf_of(sys.executable) == "7"


@pytest.mark.slow
def test_stubs_are_fresh_and_run_on_protobuf_6() -> None:
    """`make proto-check` sets up the pinned generator, whose environment has protobuf 6."""
    done = subprocess.run(
        ["make", "--no-print-directory", "proto-check"],
        check=False,
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert protobuf_of(str(PROJECT / ".venv-proto/bin/python")) == "6"

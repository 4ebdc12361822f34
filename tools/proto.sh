#!/bin/sh
# Generates the Python stubs of proto/keycustody/v1 as OUT/keycustody/v1.
#
#   tools/proto.sh [OUT]      OUT is agent unless it is given
#
# Run it through make, which makes .venv-proto first: the generator is pinned there, and its output
# depends on nothing else, so that anyone gets the same bytes. *_pb2.pyi come from mypy-protobuf:
# protoc's own leave the gRPC stubs untyped.
set -eu

CDPATH='' cd -- "$(dirname -- "$0")/.."
out=${1:-agent}
bin=.venv-proto/bin

if ! [ -x "$bin/python" ]; then
    printf 'keycustody: the generator is not installed; run: make proto\n' >&2
    exit 1
fi

mkdir -p -- "$out/keycustody/v1"
# What a removed .proto left must not stay importable.
rm -f -- "$out"/keycustody/v1/*_pb2.py "$out"/keycustody/v1/*_pb2.pyi \
    "$out"/keycustody/v1/*_pb2_grpc.py "$out"/keycustody/v1/*_pb2_grpc.pyi

printf '"""Generated from proto/keycustody/v1 by `make proto`: not to be edited."""\n' \
    >"$out/keycustody/v1/__init__.py"
"$bin/python" -m grpc_tools.protoc -I proto \
    --plugin="protoc-gen-mypy=$bin/protoc-gen-mypy" \
    --plugin="protoc-gen-mypy_grpc=$bin/protoc-gen-mypy_grpc" \
    --python_out="$out" --mypy_out="quiet:$out" \
    --grpc_python_out="$out" --mypy_grpc_out="quiet:$out" \
    proto/keycustody/v1/*.proto

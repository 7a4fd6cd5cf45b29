"""The messages of gRPC: `headrace.proto`, and what protoc makes of it.

It imports protobuf and grpcio alone. Begin with `headrace.proto`; the other files are generated, as a test checks.
"""

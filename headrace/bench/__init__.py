"""Benchmarks: each prints machine, data and repeats, and starts the real parts it measures.

It may import everything but the command line. Begin with `ingest` and `serve`; `up` starts the whole product, and
`http_load` and `grpc_load` make the requests.
"""

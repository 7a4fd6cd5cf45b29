"""What the loads of the benchmark do where a server goes away."""

import asyncio

import pytest

from headrace.bench.grpc_load import GrpcLoad
from headrace.bench.http_load import HttpLoad

WAYS = {
    "http, closed": (HttpLoad, lambda load: load.closed(4, 60)),
    "http, open": (HttpLoad, lambda load: load.open(50, 4, 60)),
    "gRPC, calls": (GrpcLoad, lambda load: load.calls(4, 60)),
    "gRPC, a stream": (GrpcLoad, lambda load: load.stream(4, 60)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_load_whose_server_closes_connections_fails_and_does_not_wait(way):
    made, run = WAYS[way]

    async def answer_nothing(reader, writer):
        await reader.read(1)
        writer.close()

    async def against_it():
        server = await asyncio.start_server(answer_nothing, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        more = ("/v1/recommend",) if made is HttpLoad else ()
        load = made("127.0.0.1", port, *more, 1, lambda user: b"{}", lambda answer: 1)
        async with server, asyncio.timeout(30):
            await run(load)

    with pytest.raises(ConnectionError, match="closed a connection under load"):
        asyncio.run(against_it())

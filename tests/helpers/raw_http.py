"""HTTP requests sent byte for byte."""

import socket
import time

HOT, BATCH, COLD = "/v1/recommend", "/v1/recommend/batch", "/v1/rules/preview"
BODY = b'{"user": "ann", "count": 2}'
BODIES = {HOT: BODY, BATCH: b'{"requests": [%b, %b]}' % (BODY, BODY), COLD: b'{"request": %b, "book": {}}' % BODY}


def send(server, *parts, pause=0.0, timeout=5.0):
    """Send bytes as they are; return all that comes back until the server closes or is quiet."""
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=timeout) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        connection.settimeout(4)
        got = b""
        try:
            while chunk := connection.recv(65536):
                got += chunk
                connection.settimeout(0.5)
        except (TimeoutError, ConnectionResetError):
            pass
        return got


def head(path, *more, method=b"POST"):
    lines = [method + b" " + path.encode() + b" HTTP/1.1", b"Host: localhost", b"Content-Type: application/json"]
    return b"\r\n".join([*lines, *more, b"", b""])


def status(answer):
    return answer.split(b" ", 2)[1] if answer else b"closed"

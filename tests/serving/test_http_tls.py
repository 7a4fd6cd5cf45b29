"""HTTP over TLS."""

import socket
import ssl

import httpx
import pytest
import trustme
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import shop_events

from headrace.settings import Settings
from serving.http.tls import http_tls
from state.settings import BadSettings


@pytest.fixture
def certificates(tmp_path):
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server.private_key_pem.write_to_path(tmp_path / "key.pem")
    server.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    return tmp_path


def test_both_ways_to_an_answer_go_over_tls_and_plain_text_gets_none(certificates):
    settings = Settings(http_certificate=certificates / "server.pem", http_private_key=certificates / "key.pem")
    recommender, _ = recommender_of(shop_events())
    with running(certificates, recommender, settings=settings) as server:
        url = f"https://127.0.0.1:{server.http_port}"
        with httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=certificates / "ca.pem")) as client:
            assert client.post("/v1/recommend", json={"count": 2}).status_code == 200
            assert client.get("/v1/popular").status_code == 200
        with socket.create_connection(("127.0.0.1", server.http_port), timeout=5) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert not connection.recv(100).startswith(b"HTTP")


@pytest.mark.parametrize(("chain", "key", "says"), [
    ("server.pem", None, "together"), (None, "key.pem", "together"), ("none.pem", "key.pem", "No such file"),
    ("ca.pem", "key.pem", "MISMATCH"), ("key.pem", "key.pem", "HTTP_CERTIFICATE"),
])  # fmt: skip
def test_a_certificate_that_cannot_be_used_is_named(certificates, chain, key, says):
    files = {"http_certificate": chain and certificates / chain, "http_private_key": key and certificates / key}
    with pytest.raises(BadSettings, match=says):
        http_tls(Settings(**files))

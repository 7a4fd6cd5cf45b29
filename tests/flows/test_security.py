"""TLS and passwords on the way to Redis and Kafka, against servers started with them."""

import pytest
import trustme

from flows.log.contract import LogUnavailable, Message
from flows.log.kafka_log import KafkaLog
from headrace.torture.local_kafka import LocalKafka
from state.embedded_redis import EmbeddedRedis
from state.ports import free_port
from state.rows import keys
from state.store.contract import StoreUnavailable
from state.store.redis_store import RedisStore

LANE = keys.prefix("g1", 0)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with ca.pem, server.pem and key.pem for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    server = authority.issue_cert("127.0.0.1", "localhost", key_type=trustme.KeyType.RSA)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    server.private_key_pem.write_to_path(folder / "key.pem")
    for part in server.cert_chain_pems:
        part.write_to_path(folder / "server.pem", append=True)
    return folder


@pytest.mark.redis
def test_redis_over_tls_with_a_user_and_password(tmp_path, certificates):
    port = free_port()
    options = {
        "tls-port": str(port), "tls-cert-file": str(certificates / "server.pem"),
        "tls-key-file": str(certificates / "key.pem"), "tls-ca-cert-file": str(certificates / "ca.pem"),
        "tls-auth-clients": "no", "aclfile": str(tmp_path / "users.acl"),
    }  # fmt: skip
    (tmp_path / "users.acl").write_text(
        "user default on nopass ~* +@all\nuser headrace on >secret ~{* ~headrace:* +@all -@dangerous\n"
    )
    server = EmbeddedRedis(tmp_path, options=options)
    with server:
        authority = f"?ssl_ca_certs={certificates / 'ca.pem'}"
        store = RedisStore(f"rediss://headrace:secret@127.0.0.1:{port}/0{authority}")
        store.commit(LANE, {}, {"a:0": 1}, {LANE + b"u:%d" % n: b"x" for n in range(500)})
        assert store.read([LANE + b"u:499"]) == [b"x"]
        store.close()
        for url in (
            f"rediss://headrace:wrong@127.0.0.1:{port}/0{authority}",
            f"rediss://headrace:secret@127.0.0.1:{port}/0",  # the certificate's authority is not known
        ):
            with pytest.raises(StoreUnavailable) as refused:
                RedisStore(url).ping()
            assert "secret" not in str(refused.value)


def kafka_properties(certificates):
    pem = {name: (certificates / f"{name}.pem").read_text().replace("\n", "\\n") for name in ("ca", "server", "key")}
    # Kafka reads PKCS#8 keys only.
    from cryptography.hazmat.primitives import serialization as s

    key = s.load_pem_private_key((certificates / "key.pem").read_bytes(), None)
    text = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()).decode().replace("\n", "\\n")
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    return f"""
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:SASL_SSL
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.plaintext.plain.sasl.jaas.config={module} required username="broker" password="b" \
user_broker="b" user_headrace="secret";
ssl.keystore.type=PEM
ssl.keystore.certificate.chain={pem["server"]}
ssl.keystore.key={text}
ssl.truststore.type=PEM
ssl.truststore.certificates={pem["ca"]}
"""


@pytest.mark.kafka
def test_kafka_over_tls_with_a_user_and_password(tmp_path, certificates):
    client = {
        "security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "headrace",
        "sasl.password": "secret", "ssl.ca.location": str(certificates / "ca.pem"),
    }  # fmt: skip
    broker = LocalKafka(tmp_path, properties=kafka_properties(certificates), client=client)
    with broker:
        log = KafkaLog(broker.bootstrap, config=client)
        log.create_topics()
        log.append([Message("ratings", b"k", b"value", 1)])
        batch = log.read({}, 10, 10.0)
        assert batch is not None
        assert batch.value(0) == b"value"
        log.close()
        wrong = KafkaLog(broker.bootstrap, config=client | {"sasl.password": "wrong", "socket.timeout.ms": "2000"})
        with pytest.raises(LogUnavailable):
            wrong.end()

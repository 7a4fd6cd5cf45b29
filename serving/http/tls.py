"""HTTP over TLS, by uvicorn's own options."""

import ssl
from typing import Any

from serving.settings import ServingSettings
from state.settings import PREFIX, BadSettings


def http_tls(settings: ServingSettings) -> dict[str, Any]:
    """Return uvicorn's options for TLS, none without a certificate. Raises BadSettings."""
    chain, key = settings.http_certificate, settings.http_private_key
    if chain is None and key is None:
        return {}
    if chain is None or key is None:
        raise BadSettings(f"{PREFIX}HTTP_CERTIFICATE and {PREFIX}HTTP_PRIVATE_KEY are needed together")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
    except ssl.SSLError as error:
        raise BadSettings(f"{PREFIX}HTTP_CERTIFICATE, _PRIVATE_KEY: {error.reason or error}") from None
    except OSError as error:
        raise BadSettings(f"{PREFIX}HTTP_CERTIFICATE {chain}, _PRIVATE_KEY {key}: {error.strerror}") from None
    return {"ssl_certfile": chain, "ssl_keyfile": key}

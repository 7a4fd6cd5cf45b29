"""Hides secrets in addresses and settings."""

import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

HIDDEN = "***"
SECRET_NAMES = re.compile(
    r"password|secret|token|user\.info|credential|ssl\.key\.pem|keystore|jaas|key_password"
    r"|account_key|connection_string|passphrase"
)
SECRET_QUERY = re.compile(r"((?:password|secret|token)[^=&]*=)[^&]*")


def hide_password(url: str) -> str:
    """Return an address with its password, or a query's, hidden.

    >>> hide_password("redis://:pa@ss@shop:6379/0?ssl_password=x"), hide_password("redis://shop")
    ('redis://:***@shop:6379/0?ssl_password=***', 'redis://shop')
    """
    if "," in url:
        return ",".join(map(hide_password, url.split(",")))
    if "://" not in url:
        return url
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if at:
        name, colon, _ = user.partition(":")
        # A user without a password is a token as a rule.
        host = f"{name}:{HIDDEN}@{host}" if colon else f"{HIDDEN}@{host}"
    return urlunsplit(parts._replace(netloc=host, query=SECRET_QUERY.sub(rf"\1{HIDDEN}", parts.query)))


def shown(name: str, value: Any) -> Any:
    """Return a setting's value as it may be shown: every password, secret and token in it hidden.

    >>> shown("kafka_config", {"sasl.username": "shop", "sasl.password": "x"})
    {'sasl.username': 'shop', 'sasl.password': '***'}
    """
    if isinstance(value, dict):
        return {key: shown(str(key), one) for key, one in value.items()}
    if isinstance(value, list):
        return [shown(name, one) for one in value]
    if value and SECRET_NAMES.search(name.lower()):
        return HIDDEN
    return hide_password(value) if isinstance(value, str) else value

"""The installation's key of ids (`schemas.ids`): a setting, else a file in data_dir that the first program makes.

A replay restores a lost Redis only under the same key, so the key is not kept in Redis.
"""

import contextlib
import os
import re
import secrets
from pathlib import Path

from schemas.ids import KEY_BYTES, use_key
from state.settings import PREFIX, BadSettings, StoreSettings

FILE = "id.key"


def use_id_key(settings: StoreSettings) -> None:
    """Hash ids with the installation's key from here on; the first call of all makes one. Raises BadSettings."""
    text = settings.id_key.get_secret_value()
    use_key(bytes.fromhex(text) if text else _key_of_file(settings.data_dir / FILE))


def _key_of_file(path: Path) -> bytes:
    try:
        if not path.exists():
            _make(path)
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"the key of ids: {path}: {error}; set {PREFIX}ID_KEY, or make the file readable") from None
    if not re.fullmatch(f"[0-9a-f]{{{2 * KEY_BYTES}}}", text):
        raise BadSettings(
            f"the key of ids: {path} does not hold {2 * KEY_BYTES} hex digits; restore it from a copy, or set "
            f"{PREFIX}ID_KEY"
        )
    return bytes.fromhex(text)


def _make(path: Path) -> None:
    """Make the file, for its owner only; of processes that do so at once one wins, and all read its key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{FILE}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)  # rows will be named by this key: it must be there after a power failure too
    os.close(folder)

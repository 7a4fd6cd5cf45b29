"""Every setting of the product, read once at the start of a program; nothing else reads environment or file.

Values come from `HEADRACE_…` environment variables, then from a TOML file
(`HEADRACE_CONFIG`, else `headrace.toml` in the working folder), then from the
defaults that the packages declare.
"""

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, get_origin

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from batch.settings import TrainingSettings
from serving.settings import ServingSettings
from state.secrets import shown
from state.settings import PREFIX, BadSettings

CONFIG = "HEADRACE_CONFIG"
DEFAULT_FILE = "headrace.toml"
OTHER_VARIABLES = {CONFIG, "HEADRACE_TEST_CACHE"}
OWN_PARTS = {PREFIX + name: "" for name in ("LOG_URL", "REDIS_URL", "ANCHORS_URL", "SCHEMA_REGISTRY_URL")}
"""Environment of programs that start parts of their own: a benchmark or the demo writes into no shop's log or Redis."""
FORMER = {"require_key": "keys are needed as soon as there are some, unless allow_anonymous is set"}
"""Settings that are gone, and what holds instead."""


class Settings(ServingSettings, TrainingSettings, BaseSettings):
    """All settings; each package takes the part it declares."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged")
    log_format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, else JSON")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where values come from, the first one first."""
        return init_settings, env_settings, _TomlValues(settings_cls)


class _TomlValues(PydanticBaseSettingsSource):
    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        return _file_values()


def load_settings() -> Settings:
    """Return the settings; raises BadSettings naming the setting that cannot be."""
    known = list(Settings.model_fields)
    variables = [PREFIX + name.upper() for name in known]
    for name in os.environ:
        if name.startswith(PREFIX) and name not in OTHER_VARIABLES and name not in variables:
            raise BadSettings(f"{name} is no setting{_instead(name, variables)}")
    for name in _file_values():
        if name not in known:
            raise BadSettings(f"{name} in {_file()} is no setting{_instead(name, known)}")
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        where = PREFIX + name.upper() if origin(name) == "environment" else f"{name} in {_file()}"
        got = "" if _may_hold_secrets(name) else f"; got {shown('.'.join(map(str, first['loc'])), first['input'])!r}"
        raise BadSettings(f"{where}: {first['msg']}{got}") from None
    except SettingsError as error:  # what should be JSON and is not
        field = re.search(r'field "(\w+)"', str(error))
        raise BadSettings(f"{PREFIX}{field[1].upper()} is not JSON" if field else str(error)) from None


def _may_hold_secrets(name: str) -> bool:
    """Return whether an invalid value must be hidden: a key, or settings that are passed on to a library."""
    kind = Settings.model_fields[name].annotation if name in Settings.model_fields else None
    return kind is SecretStr or get_origin(kind) is dict


def origin(name: str) -> str:
    """Return where a setting's value comes from: environment, file or default."""
    if PREFIX + name.upper() in os.environ:
        return "environment"
    return "file" if name in _file_values() else "default"


def _file() -> Path:
    return Path(os.environ.get(CONFIG, DEFAULT_FILE))


def _file_values() -> dict[str, Any]:
    path = _file()
    if not path.exists():
        if CONFIG in os.environ:
            raise BadSettings(f"{CONFIG} names {path}, which does not exist")
        return {}
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path} is not TOML: {error}") from None
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error.strerror}") from None


def _instead(name: str, names: list[str]) -> str:
    """Return what to do instead of setting `name`, as the end of a sentence."""
    former = FORMER.get(name.removeprefix(PREFIX).lower())
    if former is not None:
        return f" any more: {former} (docs/security.md)"
    found = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {found[0]}?" if found else ""

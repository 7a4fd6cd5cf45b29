"""Every setting of the product, read once at the start of a program; nothing else reads environment or file.

Values come from `HEADRACE_…` environment variables, then from a TOML file
(`HEADRACE_CONFIG`, else `headrace.toml` in the working folder), then, for commands
beside a running `headrace up`, from its run file, then from the defaults that the
packages declare.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, get_origin

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from batch.settings import TrainingSettings
from headrace.run_file import is_running, read_run_file
from schemas.similar_names import did_you_mean
from serving.settings import ServingSettings
from state.secrets import shown
from state.settings import PREFIX, BadSettings

CONFIG = "HEADRACE_CONFIG"
DEFAULT_FILE = "headrace.toml"
OTHER_VARIABLES = {CONFIG, "HEADRACE_TEST_CACHE"}
OWN_PARTS = {PREFIX + name: "" for name in ("LOG_URL", "REDIS_URL", "ANCHORS_URL", "SCHEMA_REGISTRY_URL")}
"""Environment of programs that start parts of their own: a benchmark or the demo writes into no shop's log or Redis."""
OF_A_PROCESS = {"data_dir", "flow_name", "http_port", "grpc_port", "flow_metrics_port", "log_level", "log_format"}
"""Settings of one process, which a command beside `headrace up` does not take over from it."""
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


def load_settings(beside_up: bool = False) -> Settings:
    """Return the settings; raises BadSettings naming the setting that cannot be.

    `beside_up`: what is not set here is as in the `headrace up` that runs on the data folder, if one does.
    """
    known = list(Settings.model_fields)
    variables = [PREFIX + name.upper() for name in known]
    for name in os.environ:
        if name.startswith(PREFIX) and name not in OTHER_VARIABLES and name not in variables:
            raise BadSettings(f"{name} is no setting{_instead(name, variables)}")
    for name in _file_values():
        if name not in known:
            raise BadSettings(f"{name} in {_file()} is no setting{_instead(name, known)}")
    try:
        return Settings(**(running_values() if beside_up else {}))
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


def data_folder() -> Path:
    """Return the data folder that is set, without reading any other setting."""
    default = Settings.model_fields["data_dir"].default
    return Path(os.environ.get(f"{PREFIX}DATA_DIR") or str(_file_values().get("data_dir", default)))


def running_values() -> dict[str, Any]:
    """Return the settings of the `headrace up` that runs on the data folder, but for those that are set here."""
    folder = data_folder()
    running = read_run_file(folder) if is_running(folder) else None
    found = dict(running.get("settings", {})) if running else {}
    return {name: value for name, value in found.items() if name in Settings.model_fields and origin(name) == "default"}


def shared_values(settings: Settings) -> dict[str, Any]:
    """Return what a command beside this `headrace up` takes over: what was set, but for secrets."""
    found = {}
    for name, value in settings.model_dump(mode="json").items():
        if origin(name) == "default" or name in OF_A_PROCESS or _may_hold_secrets(name):
            continue
        own = getattr(settings, name)
        found[name] = str(own.absolute()) if isinstance(own, Path) else value
    return found


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
    return did_you_mean(name, names)

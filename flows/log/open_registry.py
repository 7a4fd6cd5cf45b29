"""The registry that the settings name."""

from flows.log.settings import LogSettings
from schemas.registry import FolderRegistry, SchemaRegistry


def open_registry(settings: LogSettings) -> SchemaRegistry:
    """Return the registry of the settings, or the schema folder's own ids where they name none.

    Raises RegistryUnavailable for settings that its client refuses; nothing is asked yet.
    """
    if not settings.schema_registry_url:
        return FolderRegistry()
    from flows.log.confluent_registry import ConfluentRegistry

    return ConfluentRegistry(
        settings.schema_registry_url, settings.schema_registry_config, settings.schema_registry_timeout_s
    )

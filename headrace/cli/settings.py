"""`headrace settings`: what can be set, what is set, and where."""

from rich.console import Console
from rich.table import Table

from headrace.console import print_json
from headrace.options import Json
from headrace.settings import Settings, load_settings, origin, running_values
from state.secrets import shown
from state.settings import PREFIX


def run(settings: Settings, json: bool) -> None:
    """Print all settings as a table or as one JSON object."""
    values = {name: shown(name, value) for name, value in settings.model_dump(mode="json").items()}
    fields = Settings.model_fields
    running = running_values()
    origins = {name: "headrace up" if name in running else origin(name) for name in fields}
    if json:
        rows = {
            name: {"value": values[name], "from": origins[name], "meaning": field.description}
            for name, field in fields.items()
        }
        print_json(rows)
        return
    table = Table("setting", "value", "from", "meaning", caption=f"environment: {PREFIX}NAME · file: headrace.toml")
    for name, field in fields.items():
        table.add_row(name, str(values[name]), origins[name], field.description)
    Console().print(table)


def command(json: Json = False) -> None:
    """Print every setting: meaning, value, and where the value comes from."""
    run(load_settings(beside_up=True), json)

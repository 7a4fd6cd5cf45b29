"""A start of flow or server that only compiles, as `headrace up` does it with both before it starts them."""

from collections.abc import Callable
from typing import Annotated

import typer

from headrace.console import OK
from headrace.settings import Settings
from state.id_key import use_id_key

CompileOnly = Annotated[bool, typer.Option(hidden=True, help="Compile what is not kept of earlier starts, and end.")]


def compile_and_end(settings: Settings, warm_up: Callable[[], None]) -> None:
    """Do what takes long at a first start; raises typer.Exit."""
    use_id_key(settings)
    warm_up()
    raise typer.Exit(OK)

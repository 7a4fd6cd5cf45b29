"""`headrace version`."""

import sys
from importlib.metadata import version as installed

from headrace.console import print_json
from headrace.options import Json


def command(json: Json = False) -> None:
    """Print the version."""
    number = installed("headrace")
    if json:
        print_json({"version": number})
    else:
        sys.stdout.write(number + "\n")

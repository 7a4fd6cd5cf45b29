"""What each part of a book may hold, with an example."""

from typing import Any, get_args

from pydantic import BaseModel

from serving.rules.experiments import Arm, Experiment
from serving.rules.model import Book, Placement, Rule

EXAMPLES = {
    "include": "{id: only-outlet, action: include, where: attr.outlet == 'yes', placements: [home]}",
    "exclude": "{id: no-weapons, action: exclude, where: 'under(category, \"weapons\")'}",
    "boost": "{id: own-brand, action: boost, where: brand == 'Ours', factor: 1.5}",
    "pin": "{id: hero, action: pin, items: [sku-1, sku-2], position: 1}",
    "promote": "{id: season, action: promote, where: brand == 'Ours', positions: [2, 5]}",
    "cap": "{id: mix, action: cap, by: brand, most: 2, first: 6}",
    "min_stock": "{id: keep-some, action: min_stock, least: 3}",
    "min_margin": "{id: earn-some, action: min_margin, least: 0.05}",
}
"""A rule of each action."""
OTHERS = {
    "placements": "outlet: {strategy: popular, count: 8, repeat: exclude}",
    "experiments": "{id: variety, placements: [home], arms: [{name: as-is}, {name: varied, diversity: 0.4}]}",
    "arms": "{name: varied, diversity: 0.4}",
}
"""A placement, an experiment and an arm."""
ACTIONS: dict[str, type[BaseModel]] = {
    get_args(one.model_fields["action"].annotation)[0]: one for one in get_args(get_args(Rule)[0])
}
"""The model of each action."""


def model_at(data: Any, path: tuple[int | str, ...]) -> tuple[str, type[BaseModel], str]:
    """Return what the part of a book at `path` is (`a boost rule`), its model and an example of it."""
    match path:
        case ("rules", int(n), *_):
            action = data["rules"][n].get("action") if isinstance(data["rules"][n], dict) else None
            if action in ACTIONS:
                return f"a rule with action {action}", ACTIONS[action], EXAMPLES[action]
            return "a rule", ACTIONS["boost"], EXAMPLES["boost"]
        case ("placements", _, *_):
            return "a placement", Placement, OTHERS["placements"]
        case ("experiments", int(), "arms", int(), *_):
            return "an arm", Arm, OTHERS["arms"]
        case ("experiments", int(), *_):
            return "an experiment", Experiment, OTHERS["experiments"]
        case _:
            return "a book", Book, "rules: [" + EXAMPLES["min_stock"] + "]"

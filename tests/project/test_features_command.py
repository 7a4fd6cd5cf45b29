from helpers.fold_oracle import Event
from helpers.recommenders import recommender_of
from helpers.serving_rows import product

from headrace.cli.features import names_of, readable
from schemas.events import Kind
from schemas.ids import hash_id
from state.rows import keys
from state.rows.features import Reading, read_features

AT = 1_700_000_000_000


def test_features_are_shown_with_names_and_times_that_people_read():
    events = [Event("ann", "tea", AT, Kind.PURCHASE), Event("ann", "lost", AT + 1000)]
    shop, store = recommender_of(events, [product("tea", "Tea", brand="Acme", category="drinks/tea")])
    (row,) = store.read([keys.user(keys.prefix("g1", 0), hash_id("ann"))])
    found = read_features("user", row, Reading(AT, (1, 7)))
    shown = readable(found, names_of(shop.shop.catalogue))
    assert shown["user.history"] == ["tea", "lost"]
    assert shown["user.history_kinds"] == ["purchase", "view"]
    assert (shown["user.categories"], shown["user.brands"]) == ({"drinks/tea": "100%"}, {"Acme": "100%"})
    assert shown["user.last_ms"] == "2023-11-14 22:13:21+00:00"
    assert readable(found, {})["user.history"] == found["user.history"]

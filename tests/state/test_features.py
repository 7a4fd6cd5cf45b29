import numpy as np

from schemas.events import Kind
from state.rows.decay import BITS
from state.rows.features import FEATURES, Reading, read_features
from state.rows.item_rows import empty_items, encode_items
from state.rows.user_rows import empty_users, encode_users

ONE = np.zeros(1, np.int64)
DAY = 86_400_000


def test_every_feature_is_described_and_named_once():
    assert len({f.name for f in FEATURES}) == len(FEATURES)
    for feature in FEATURES:
        assert feature.name.startswith(feature.row + ".")
        assert all((feature.type, feature.unit, feature.meaning, feature.freshness))


def test_user_features_are_read_from_the_row():
    users = empty_users(1)
    users["n"][0], users["seen"][0], users["last_ms"][0] = 2, 7, 5_000
    users["item"][0, :2], users["kind"][0, :2] = [10, 11], [Kind.VIEW, Kind.PURCHASE | 3 << 5]
    users["counts"][0] = [4, 1, 2, 0]
    users["price_n"][0], users["price_sum"][0], users["price_square"][0] = 2, 2 * 2303, 2 * 2303**2
    users["affinity"][0, 0, :2], users["affinity_id"][0, 0, :2] = [300, 100], [5, 6]
    found = read_features("user", encode_users(users, ONE)[0], Reading(9_000, (DAY, 7 * DAY)))
    assert found is not None
    assert (found["user.events"], found["user.purchases"], found["user.last_ms"]) == (7, 2, 5_000)
    assert found["user.history"] == [f"{10:016x}", f"{11:016x}"]
    assert found["user.history_kinds"] == [Kind.VIEW, Kind.PURCHASE]
    assert abs(found["user.price_mean"] - 10.0) < 0.01
    assert found["user.price_spread"] == 0.0
    assert found["user.categories"] == {"00000005": 0.75, "00000006": 0.25}
    assert found["user.first_ms"] is None


def test_item_popularity_fades_with_its_half_life():
    items = empty_items(1)
    items["pop"][0, :, 0] = 8 << BITS
    row = encode_items(items, ONE)[0]
    values = [read_features("item", row, Reading(now, (DAY, 7 * DAY)))["item.popularity_short"] for now in (0, DAY)]
    assert values == [8.0, 4.0]


def test_no_row_has_no_features():
    assert read_features("user", None, Reading(0, (1, 1))) is None

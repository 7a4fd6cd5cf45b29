"""The torture compares with what was made, not with what the log gave back: what gets lost on the way shows."""

import pytest

from flows.settings import lane_settings
from headrace.torture.reference import differing, differing_products, events_seen, fold_sent
from headrace.torture.stage import FOLD
from headrace.torture.stream import LEAVING, make_stream

N = 1500
SETTINGS = lane_settings(FOLD)


@pytest.fixture(scope="module")
def sent():
    return make_stream(1, N)


@pytest.fixture(scope="module")
def expected(sent):
    return fold_sent(sent, SETTINGS)


def gaps(real, expected):
    seen, wanted = events_seen(real), events_seen(expected)
    return [seen.get(user, 0) - wanted.get(user, 0) for user in set(seen) | set(wanted)]


@pytest.mark.parametrize("how", ["thrice", "shuffled", "late"])
def test_a_stream_is_folded_to_the_same_rows_however_it_is_delivered(sent, expected, how):
    real = fold_sent(make_stream(1, N, how), SETTINGS)
    compared, wrong = differing(real, expected)
    assert (compared > 500, wrong, set(gaps(real, expected))) == (True, 0, {0})


def test_products_are_what_their_changes_make_of_them_and_a_lost_change_is_found(sent, expected):
    assert differing_products(expected, sent) == 0
    last = max(k for k, one in enumerate(sent) if one.topic == "product-updates")
    real = fold_sent([*sent[:last], *sent[last + 1 :]], SETTINGS)
    assert differing(real, expected)[1] > 0
    assert differing_products(real, sent) == 1


def test_a_lost_event_is_found(sent, expected):
    assert sent[700].topic == "product-views"
    real = fold_sent([*sent[:700], *sent[701:]], SETTINGS)
    assert differing(real, expected)[1] > 0
    assert sorted(gaps(real, expected))[0] == -1


def test_an_event_folded_twice_is_found(sent, expected):
    other = next(one for one in make_stream(2, N) if one.key == sent[0].key)
    real = fold_sent([*sent, other], SETTINGS)
    assert differing(real, expected)[1] > 0


def test_messages_that_a_producer_repeats_are_no_difference_and_too_few_duplicates_are_one(sent, expected):
    repeated = fold_sent([*sent[:900], *sent[500:900], *sent[900:]], SETTINGS)
    assert differing(repeated, expected)[1] == 0
    assert differing(expected, repeated)[1] == 1


def test_an_erasure_that_got_lost_is_found(sent, expected):
    kept = [one for one in sent if one.topic != "erasures"]
    assert len(sent) - len(kept) == len(LEAVING)
    assert differing(fold_sent(kept, SETTINGS), expected)[1] > 10

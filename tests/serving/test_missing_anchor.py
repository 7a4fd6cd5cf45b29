"""A server whose live anchor cannot be had answers without it and says so."""

import asyncio

import pytest
from helpers.books import books_of
from helpers.recommenders import recommender_of
from helpers.serving_rows import shop_events
from structlog.testing import capture_logs

from headrace.settings import Settings
from serving.app.follower import Follower
from serving.auth.api_keys import Guard
from state.rows import keys


@pytest.mark.parametrize("anchors", ["", "file", "absent"])
def test_a_server_without_a_readable_folder_of_anchors_answers_and_says_so(tmp_path, anchors):
    (tmp_path / "file").write_text("")
    (tmp_path / "anchors").write_text("")  # of the settings without an address
    settings = Settings(data_dir=tmp_path, anchors_url=str(tmp_path / anchors) if anchors else "")
    recommender, store = recommender_of(shop_events())
    store.write({keys.ANCHOR_LIVE: b"a1"})
    follower = Follower(recommender, settings, Guard(tmp_path / "keys.json"), books_of(store, tmp_path))

    async def first_look():
        await follower.look()
        await follower.saved()

    with capture_logs() as said:
        asyncio.run(first_look())
    assert (follower.ready, recommender.anchor) == (True, None)
    assert {
        "anchor": "a1",
        "event": "answering without an anchor until it can be loaded",
        "log_level": "warning",
    } in said
    (reason,) = [one["error"] for one in said if "cannot be fetched" in one["event"]]
    assert str(tmp_path / (anchors or "anchors")) in reason

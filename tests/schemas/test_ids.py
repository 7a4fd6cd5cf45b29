"""Ids that are hashed together have the hashes they have alone."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import hash_id, hash_ids

IDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@given(st.lists(IDS, max_size=20))
def test_ids_hashed_together(texts):
    assert hash_ids(texts).tolist() == [hash_id(text) for text in texts]

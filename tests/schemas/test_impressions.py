from hypothesis import given
from hypothesis import strategies as st

from schemas.impressions import encode_impressions
from schemas.json_events import encode
from schemas.registry import FolderRegistry

REGISTRY = FolderRegistry()
TEXT = st.text(max_size=300)
OPTIONAL = st.none() | TEXT


@given(
    st.fixed_dictionaries({
        "ts_ms": st.integers(0, 2**53), "request_id": TEXT, "user": OPTIONAL, "session": OPTIONAL, "arm": OPTIONAL,
        "anchor": OPTIONAL, "generation": OPTIONAL, "propensity": st.none() | st.floats(0, 1),
    }),
    st.lists(st.tuples(TEXT, TEXT), max_size=70),
)  # fmt: skip
def test_a_list_is_encoded_as_its_impressions_are_one_by_one(shared, items):
    expected = [
        encode(
            "impressions",
            shared | {"event_id": f"{shared['request_id']}-{k}", "item": item, "position": k, "source": source},
            REGISTRY,
        )
        for k, (item, source) in enumerate(items, 1)
    ]
    assert encode_impressions(REGISTRY.id_for("impressions"), shared, items) == expected

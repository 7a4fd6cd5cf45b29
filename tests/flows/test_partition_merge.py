import itertools

from hypothesis import given
from hypothesis import strategies as st

from flows.log.partition_merge import TimeMerge

STREAMS = ("a:0", "b:0", "b:1")
partitions = st.fixed_dictionaries({stream: st.lists(st.integers(0, 50), max_size=12) for stream in STREAMS})
rounds = st.lists(st.tuples(*[st.integers(0, 5)] * len(STREAMS)), max_size=10)


@given(partitions, rounds, st.lists(st.integers(1, 6), min_size=1, max_size=10))
def test_messages_come_by_time_however_the_broker_hands_them_out(times, reads, takes):
    """Read in any steps, as long as the merge knows what is still to come."""
    times = {stream: sorted(values) for stream, values in times.items()}
    n_read, n_taken = itertools.cycle([*reads, (1, 1, 1)]), itertools.cycle(takes)
    merge, given_out, read = TimeMerge(STREAMS), [], dict.fromkeys(STREAMS, 0)
    while any(read[s] < len(times[s]) for s in STREAMS) or len(merge):
        for stream, most in zip(STREAMS, next(n_read), strict=True):
            for _ in range(most):
                if read[stream] < len(times[stream]):
                    at = read[stream]
                    merge.add(stream, [at], [times[stream][at]], [b"%d" % times[stream][at]], [None])
                    read[stream] += 1
        more = {s for s in STREAMS if read[s] < len(times[s])}
        merged = merge.take(more, next(n_taken))
        given_out += zip(merged.stream, merged.offset, [int(v) for v in merged.value], strict=True)
    assert [ts for _, _, ts in given_out] == sorted(ts for values in times.values() for ts in values)
    for index, stream in enumerate(STREAMS):
        assert [offset for s, offset, _ in given_out if s == index] == list(range(len(times[stream])))


def test_a_message_older_than_the_one_before_it_in_its_partition_stays_behind_it():
    merge = TimeMerge(("a:0", "b:0"))
    merge.add("a:0", [0, 1], [10, 5], [b""] * 2, [None] * 2)
    merge.add("a:0", [2], [20], [b""], [None])
    merge.add("b:0", [0], [12], [b""], [None])
    assert merge.take(set(), 9).offset == [0, 1, 0, 2]


def test_nothing_goes_while_a_stream_with_more_to_come_is_not_read():
    merge = TimeMerge(("a:0", "b:0"))
    merge.add("a:0", [0], [10], [b""], [None])
    assert merge.take({"b:0"}, 9).offset == []
    assert merge.end("a:0") == 1
    assert merge.take(set(), 9).offset == [0]

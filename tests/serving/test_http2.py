"""A connection by nghttp2 and one by h2, the oracle, to the same client: both must hear and say the same."""

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.http2 import Http2Connection

PLAIN = {f"{what}_{way}bound_headers": False for what in ("validate", "normalize") for way in ("in", "out")}
WINDOW = 65_535
ASKED = [(":method", "POST"), (":scheme", "http"), (":path", "/a"), (":authority", "x"), ("te", "trailers")]
HEADERS, TRAILERS = [(":status", "200"), ("content-type", "application/grpc")], [("grpc-status", "0")]


def by_h2():
    config = h2.config.H2Configuration(client_side=False, header_encoding="ascii", **PLAIN)
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    return connection


def by_nghttp2():
    return Http2Connection(WINDOW, WINDOW)


class Pair:
    """A client of h2's and a server that answers each stream with what it was sent, twice, when all has come."""

    def __init__(self, server):
        self.server, self.client = server, h2.connection.H2Connection()
        self.client.initiate_connection()
        self.heard, self.came, self.answers = {}, {}, {}
        self.ids, self.over = [], set()

    def deliver(self, parts=1):
        """Let both hear each other until they have nothing to say."""
        while True:
            data = bytes(self.client.data_to_send())
            size = max(1, -(-len(data) // parts))
            for at in range(0, len(data), size):
                for event in self.server.receive_data(data[at : at + size]):
                    self._serve(event)
            self._answer()
            back = bytes(self.server.data_to_send())
            for event in self.client.receive_data(back):
                self._hear(event)
            if not (data or back):
                return

    def _serve(self, event):
        kind = type(event)
        if kind is h2.events.RequestReceived:
            self.came[event.stream_id] = [dict(event.headers), bytearray(), ""]
        elif kind is h2.events.DataReceived:
            self.came[event.stream_id][1] += event.data
            self.server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif kind is h2.events.StreamEnded:
            self.came[event.stream_id][2] = "ended"
            if self._listens(event.stream_id):
                self.answers[event.stream_id] = bytes(self.came[event.stream_id][1]) * 2
                self.server.send_headers(event.stream_id, HEADERS)
        elif kind is h2.events.StreamReset:
            self.came[event.stream_id][2] = f"reset {int(event.error_code)}"
            self.answers.pop(event.stream_id, None)

    def _listens(self, stream_id):
        """Say whether something can be sent, as grpclib finds out."""
        stream = self.server.streams.get(stream_id)
        return stream is not None and not stream.closed

    def _answer(self):
        for stream, rest in list(self.answers.items()):
            while rest and (room := min(self.server.local_flow_control_window(stream), 16_384)) > 0:
                self.server.send_data(stream, rest[:room])
                rest = rest[room:]
            self.answers[stream] = rest
            if not rest:
                del self.answers[stream]
                self.server.send_headers(stream, TRAILERS, end_stream=True)

    def _hear(self, event):
        said = self.heard.setdefault(getattr(event, "stream_id", 0), [[], bytearray(), ""])
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            said[0] += [tuple(part.decode() for part in header) for header in event.headers]
        elif isinstance(event, h2.events.DataReceived):
            said[1] += event.data
            self.client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            said[2] = "ended"
        elif isinstance(event, h2.events.StreamReset):
            said[2] = "reset"

    def do(self, what, which, size):
        """Let the client do something, where it can."""
        if what == "ask" and len(self.ids) < 50:
            self.ids.append(self.client.get_next_available_stream_id())
            self.client.send_headers(self.ids[-1], [*ASKED, ("x-number", str(size))])
        elif what == "window":
            self.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 + size})
        elif what == "deliver":
            self.deliver(1 + size % 7)
        elif self.ids:
            stream = self.ids[which % len(self.ids)]
            known = self.client.streams.get(stream)
            if what == "reset" and known is not None and not known.closed:
                self.client.reset_stream(stream, size % 10)
                self.over.add(stream)
            elif what != "reset" and stream not in self.over:
                self._say(what, stream, size)

    def _say(self, what, stream, size):
        if what == "send":
            room = self.client.local_flow_control_window(stream)
            self.client.send_data(stream, bytes([stream]) * min(size, room, 16_384))
            return
        self.over.add(stream)
        if what == "end":
            self.client.end_stream(stream)
        else:
            self.client.send_headers(stream, [("x-last", "1")], end_stream=True)


STEPS = st.tuples(
    st.sampled_from(["ask", "ask", "send", "send", "end", "end", "trailers", "reset", "window", "deliver"]),
    st.integers(0, 60),
    st.integers(0, 40_000),
)


@given(st.lists(STEPS, max_size=40))
def test_both_hear_and_say_the_same(steps):
    found = []
    for make in (by_nghttp2, by_h2):
        pair = Pair(make())
        pair.deliver()
        for step in steps:
            pair.do(*step)
        pair.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
        pair.deliver()
        pair.heard.pop(0, None)
        found.append((pair.came, pair.heard))
    assert found[0] == found[1]


@given(st.lists(STEPS, min_size=3, max_size=20), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=5))
def test_broken_bytes_end_the_connection_or_nothing_and_never_the_server(steps, changes):
    pair = Pair(by_nghttp2())
    for step in steps:
        if step[0] != "deliver":
            pair.do(*step)
    data = bytearray(pair.client.data_to_send())
    for at, value in changes:
        data[at % len(data)] = value
    server = pair.server
    try:
        for event in server.receive_data(bytes(data)):
            pair._serve(event)
        pair._answer()
        server.data_to_send()
    except h2.exceptions.ProtocolError:
        return
    if server.ended:
        assert not server.data_to_send()


def test_a_connection_that_is_not_http2_ends():
    with pytest.raises(h2.exceptions.ProtocolError, match="magic"):
        by_nghttp2().receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


def test_a_frame_that_is_none_is_answered_with_goodbye():
    server = by_nghttp2()
    client = h2.connection.H2Connection()
    client.initiate_connection()
    server.receive_data(client.data_to_send() + b"\0\0\1\4\0\0\0\0\0x")  # settings of one byte
    assert not server.ended
    events = client.receive_data(bytes(server.data_to_send()))
    assert any(isinstance(event, h2.events.ConnectionTerminated) for event in events)
    assert server.ended


def test_a_stream_that_is_gone_is_said_to_be():
    server = by_nghttp2()
    for act in (lambda: server.send_data(1, b"x"), lambda: server.local_flow_control_window(7)):
        with pytest.raises(h2.exceptions.StreamClosedError):
            act()

"""A server's HTTP/2 connection by nghttp2, with as much of the face of h2's as grpclib and the hot path look at."""

from types import SimpleNamespace

from h2.connection import ConnectionState
from h2.events import Event
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes

from serving.nghttp2 import Heard, Outgoing, callbacks, ffi, fields, library, read

MAX_STREAMS, MAX_HEADERS = 100, 1 << 16
"""At a time, and bytes of headers of one: as h2 has them."""


class Http2Connection:
    """The part of `h2.connection.H2Connection` that a gRPC server needs; nghttp2 does the work."""

    max_outbound_frame_size = 1 << 24
    """nghttp2 cuts what it is given into frames."""
    state_machine = SimpleNamespace(state=ConnectionState.SERVER_OPEN)
    """Of what has ended there are no `streams`."""

    def __init__(self, window: int, stream_window: int) -> None:
        """A client may send so many bytes ahead of what is acknowledged, in all and on each stream."""
        self._lib, self._heard = library(), Heard()
        self.streams: dict[int, Outgoing] = self._heard.streams
        self._handle = ffi.new_handle(self._heard)
        made = ffi.new("nghttp2_session **")
        self._check(self._lib.nghttp2_session_server_new2(made, callbacks()[0], self._handle, callbacks()[1]))
        self._session = ffi.gc(made[0], self._lib.nghttp2_session_del)
        self._provider = ffi.new("nghttp2_data_provider *", {"read_callback": read})
        self._written, self._next = bytearray(), ffi.new("const uint8_t **")
        settings = ffi.new(
            "nghttp2_settings_entry[]",
            [
                (SettingCodes.MAX_CONCURRENT_STREAMS, MAX_STREAMS), (SettingCodes.MAX_HEADER_LIST_SIZE, MAX_HEADERS),
                (SettingCodes.INITIAL_WINDOW_SIZE, stream_window),
            ],
        )  # fmt: skip
        self._check(self._lib.nghttp2_submit_settings(self._session, 0, settings, len(settings)))
        self._check(self._lib.nghttp2_session_set_local_window_size(self._session, 0, 0, window))

    def _check(self, code: int) -> int:
        """Return what nghttp2 did. Raises ProtocolError."""
        if code < 0:
            raise ProtocolError(ffi.string(self._lib.nghttp2_strerror(code)).decode())
        return code

    def _stream(self, stream_id: int) -> Outgoing:
        stream = self.streams.get(stream_id)
        if stream is None:
            raise StreamClosedError(stream_id)
        return stream

    def receive_data(self, data: bytes) -> list[Event]:
        """Return what came. Raises ProtocolError."""
        self._check(self._lib.nghttp2_session_mem_recv(self._session, ffi.from_buffer(data), len(data)))
        events, self._heard.events = self._heard.events, []
        return events

    def acknowledge_received_data(self, size: int, stream_id: int) -> None:
        self._check(self._lib.nghttp2_session_consume(self._session, stream_id, size))

    def send_headers(self, stream_id: int, headers: list[tuple[str, str]], end_stream: bool = False) -> None:
        """Send the headers of an answer or, where they were sent, its trailers."""
        stream = self._stream(stream_id)
        if stream.begun:
            stream.trailers = tuple(headers)
            self._go_on(stream_id, stream, True)
        else:
            stream.begun, stream.over = True, end_stream
            array, count, _ = fields(tuple(headers))
            provider = ffi.NULL if end_stream else self._provider
            self._check(self._lib.nghttp2_submit_response(self._session, stream_id, array, count, provider))

    def send_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        stream = self._stream(stream_id)
        stream.data += data
        self._go_on(stream_id, stream, end_stream)

    def end_stream(self, stream_id: int) -> None:
        self._go_on(stream_id, self._stream(stream_id), True)

    def _go_on(self, stream_id: int, stream: Outgoing, over: bool) -> None:
        stream.over = over
        self._lib.nghttp2_session_resume_data(self._session, stream_id)  # fails where it needs no resuming

    def reset_stream(self, stream_id: int, error_code: int = 0) -> None:
        """End a stream, behind what was sent on it before."""
        self._write()
        self._stream(stream_id).reset = True
        self._check(self._lib.nghttp2_submit_rst_stream(self._session, 0, stream_id, int(error_code)))

    def local_flow_control_window(self, stream_id: int) -> int:
        """Return how many bytes the client has room for."""
        waiting = len(self._stream(stream_id).data)
        room = self._lib.nghttp2_session_get_stream_remote_window_size(self._session, stream_id)
        return int(min(room, self._lib.nghttp2_session_get_remote_window_size(self._session))) - waiting

    def _write(self) -> None:
        while size := self._check(self._lib.nghttp2_session_mem_send(self._session, self._next)):
            self._written += ffi.buffer(self._next[0], size)

    def data_to_send(self) -> bytearray:
        """Return what is to be written now."""
        self._write()
        written, self._written = self._written, bytearray()
        return written

    @property
    def ended(self) -> bool:
        """Whether nothing more will come or go: the client broke the rules, and was told so."""
        lib, session = self._lib, self._session
        return not (lib.nghttp2_session_want_read(session) or lib.nghttp2_session_want_write(session))

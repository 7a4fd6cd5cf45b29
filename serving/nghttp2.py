"""nghttp2, the HTTP/2 library of curl and others, called by cffi: what comes on a connection as h2's events."""

from functools import cache, lru_cache
from typing import Any

from cffi import FFI
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.settings import ChangedSetting, SettingCodes

NAMES = ("libnghttp2.so.14", "libnghttp2.14.dylib")
DATA, HEADERS, SETTINGS, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 7, 8
END_STREAM = ACK = 1
END_OF_DATA, NO_END_STREAM = 1, 2
DEFERRED, CALLBACK_FAILURE = -508, -902

ffi = FFI()
ffi.cdef("""
    typedef struct nghttp2_session nghttp2_session;
    typedef struct nghttp2_session_callbacks nghttp2_session_callbacks;
    typedef struct nghttp2_option nghttp2_option;
    typedef struct {
        size_t length; int32_t stream_id; uint8_t type; uint8_t flags; uint8_t reserved;
    } nghttp2_frame_hd;
    typedef struct { uint8_t *name; uint8_t *value; size_t namelen; size_t valuelen; uint8_t flags; } nghttp2_nv;
    typedef struct { int32_t settings_id; uint32_t value; } nghttp2_settings_entry;
    typedef ssize_t (*nghttp2_read)(nghttp2_session *session, int32_t stream_id, uint8_t *buf, size_t length,
                                    uint32_t *data_flags, void *source, void *user_data);
    typedef struct { void *source; nghttp2_read read_callback; } nghttp2_data_provider;
    typedef int (*nghttp2_frame)(nghttp2_session *session, const nghttp2_frame_hd *frame, void *user_data);
    typedef int (*nghttp2_header)(nghttp2_session *session, const nghttp2_frame_hd *frame, const uint8_t *name,
                                  size_t namelen, const uint8_t *value, size_t valuelen, uint8_t flags,
                                  void *user_data);
    typedef int (*nghttp2_chunk)(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data,
                                 size_t len, void *user_data);
    typedef int (*nghttp2_close)(nghttp2_session *session, int32_t stream_id, uint32_t error_code, void *user_data);

    int nghttp2_session_callbacks_new(nghttp2_session_callbacks **callbacks);
    void nghttp2_session_callbacks_set_on_begin_headers_callback(nghttp2_session_callbacks *, nghttp2_frame);
    void nghttp2_session_callbacks_set_on_header_callback(nghttp2_session_callbacks *, nghttp2_header);
    void nghttp2_session_callbacks_set_on_frame_recv_callback(nghttp2_session_callbacks *, nghttp2_frame);
    void nghttp2_session_callbacks_set_on_data_chunk_recv_callback(nghttp2_session_callbacks *, nghttp2_chunk);
    void nghttp2_session_callbacks_set_on_stream_close_callback(nghttp2_session_callbacks *, nghttp2_close);
    int nghttp2_option_new(nghttp2_option **option);
    void nghttp2_option_set_no_auto_window_update(nghttp2_option *option, int val);

    int nghttp2_session_server_new2(nghttp2_session **session, const nghttp2_session_callbacks *callbacks,
                                    void *user_data, const nghttp2_option *option);
    void nghttp2_session_del(nghttp2_session *session);
    ssize_t nghttp2_session_mem_recv(nghttp2_session *session, const uint8_t *in, size_t inlen);
    ssize_t nghttp2_session_mem_send(nghttp2_session *session, const uint8_t **data_ptr);
    int nghttp2_session_want_read(nghttp2_session *session);
    int nghttp2_session_want_write(nghttp2_session *session);
    int nghttp2_session_resume_data(nghttp2_session *session, int32_t stream_id);
    int nghttp2_session_consume(nghttp2_session *session, int32_t stream_id, size_t size);
    int nghttp2_session_set_local_window_size(nghttp2_session *session, uint8_t flags, int32_t stream_id,
                                              int32_t window_size);
    int32_t nghttp2_session_get_stream_remote_window_size(nghttp2_session *session, int32_t stream_id);
    int32_t nghttp2_session_get_remote_window_size(nghttp2_session *session);
    int nghttp2_submit_settings(nghttp2_session *session, uint8_t flags, const nghttp2_settings_entry *iv, size_t niv);
    int nghttp2_submit_response(nghttp2_session *session, int32_t stream_id, const nghttp2_nv *nva, size_t nvlen,
                                const nghttp2_data_provider *data_prd);
    int nghttp2_submit_trailer(nghttp2_session *session, int32_t stream_id, const nghttp2_nv *nva, size_t nvlen);
    int nghttp2_submit_rst_stream(nghttp2_session *session, uint8_t flags, int32_t stream_id, uint32_t error_code);
    const char *nghttp2_strerror(int lib_error_code);
""")


class Outgoing:
    """What a stream has to say and has not said yet."""

    __slots__ = ("begun", "data", "ended", "over", "reset", "trailers")

    def __init__(self) -> None:
        self.data = bytearray()
        self.trailers: tuple[tuple[str, str], ...] = ()
        self.begun = self.over = self.ended = self.reset = False
        """Whether headers were sent; nothing comes behind `data` but trailers; the client has said all; we reset it."""

    @property
    def closed(self) -> bool:
        return self.over and self.ended


class Heard:
    """What the callbacks know of a connection: its streams, and what came since it was asked last."""

    def __init__(self) -> None:
        self.streams = dict[int, Outgoing]()
        self.events = list[Event]()
        self.headers: Any = []


@cache
def library() -> Any:
    """Return nghttp2, None where the system has none."""
    for name in NAMES:
        try:
            return ffi.dlopen(name)
        except OSError:
            continue
    return None


@lru_cache(maxsize=256)
def fields(headers: tuple[tuple[str, str], ...]) -> tuple[Any, int, list[Any]]:
    """Return headers as nghttp2 takes them, their number, and what must live as long."""
    kept = [(ffi.from_buffer(name.encode()), ffi.from_buffer(value.encode())) for name, value in headers]
    array = ffi.new("nghttp2_nv[]", [(name, value, len(name), len(value), 0) for name, value in kept])
    return array, len(kept), kept


@ffi.callback("nghttp2_frame", error=CALLBACK_FAILURE)
def _begin_headers(session: Any, frame: Any, user_data: Any) -> int:
    ffi.from_handle(user_data).headers = []
    return 0


@ffi.callback("nghttp2_header", error=CALLBACK_FAILURE)
def _header(
    session: Any, frame: Any, name: Any, name_size: int, value: Any, value_size: int, flags: int, user_data: Any
) -> int:
    said = ffi.unpack(ffi.cast("char *", name), name_size), ffi.unpack(ffi.cast("char *", value), value_size)
    ffi.from_handle(user_data).headers.append((said[0].decode("latin-1"), said[1].decode("latin-1")))
    return 0


@ffi.callback("nghttp2_frame", error=CALLBACK_FAILURE)
def _frame(session: Any, frame: Any, user_data: Any) -> int:
    heard: Heard = ffi.from_handle(user_data)
    kind, stream_id, flags = frame.type, frame.stream_id, frame.flags
    add = heard.events.append
    if kind == HEADERS:
        if stream_id in heard.streams:
            add(TrailersReceived(stream_id=stream_id, headers=heard.headers))
        else:
            heard.streams[stream_id] = Outgoing()
            add(RequestReceived(stream_id=stream_id, headers=heard.headers))
    elif kind == WINDOW_UPDATE:
        add(WindowUpdated(stream_id=stream_id))
    elif kind == SETTINGS and not flags & ACK:
        event = RemoteSettingsChanged()  # whatever has changed: who waits for room looks again
        event.changed_settings[SettingCodes.INITIAL_WINDOW_SIZE] = ChangedSetting(
            SettingCodes.INITIAL_WINDOW_SIZE, 0, 0
        )
        add(event)
    elif kind == GOAWAY:
        add(ConnectionTerminated())
    if kind in (HEADERS, DATA) and flags & END_STREAM:
        heard.streams[stream_id].ended = True
        add(StreamEnded(stream_id=stream_id))
    return 0


@ffi.callback("nghttp2_chunk", error=CALLBACK_FAILURE)
def _chunk(session: Any, flags: int, stream_id: int, data: Any, size: int, user_data: Any) -> int:
    heard: Heard = ffi.from_handle(user_data)
    came = ffi.unpack(ffi.cast("char *", data), size)
    heard.events.append(DataReceived(stream_id=stream_id, data=came, flow_controlled_length=size))
    return 0


@ffi.callback("nghttp2_close", error=CALLBACK_FAILURE)
def _close(session: Any, stream_id: int, error_code: int, user_data: Any) -> int:
    heard: Heard = ffi.from_handle(user_data)
    stream = heard.streams.pop(stream_id, None)
    if stream is not None and not stream.reset and (error_code or not stream.closed):
        heard.events.append(StreamReset(stream_id=stream_id, error_code=error_code))
    return 0


@ffi.callback("nghttp2_read", error=CALLBACK_FAILURE)
def read(session: Any, stream_id: int, buffer: Any, size: int, flags: Any, source: Any, user_data: Any) -> int:
    """Give nghttp2 what a stream has to say next."""
    stream = ffi.from_handle(user_data).streams[stream_id]
    n = min(size, len(stream.data))
    if not n and not stream.over:
        return DEFERRED
    ffi.memmove(buffer, stream.data, n)
    del stream.data[:n]
    if stream.over and not stream.data:
        flags[0] = END_OF_DATA
        if stream.trailers:
            flags[0] |= NO_END_STREAM
            array, count, _ = fields(stream.trailers)
            library().nghttp2_submit_trailer(session, stream_id, array, count)
    return n


@cache
def callbacks() -> tuple[Any, Any]:
    """Return nghttp2's callbacks and options of all connections."""
    lib = library()
    made, option = ffi.new("nghttp2_session_callbacks **"), ffi.new("nghttp2_option **")
    lib.nghttp2_session_callbacks_new(made)
    lib.nghttp2_session_callbacks_set_on_begin_headers_callback(made[0], _begin_headers)
    lib.nghttp2_session_callbacks_set_on_header_callback(made[0], _header)
    lib.nghttp2_session_callbacks_set_on_frame_recv_callback(made[0], _frame)
    lib.nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made[0], _chunk)
    lib.nghttp2_session_callbacks_set_on_stream_close_callback(made[0], _close)
    lib.nghttp2_option_new(option)
    lib.nghttp2_option_set_no_auto_window_update(option[0], 1)
    return made[0], option[0]

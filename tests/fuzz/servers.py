"""Servers that answer from a script, byte for byte: one connection after the other, on 127.0.0.1."""

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av

Answer = Callable[[bytes], bytes]
"""A request's bytes to the reply's; an empty reply hangs up."""
REQUEST = re.compile(rb"(?s)(.*?)\r\n\r\n")


@contextmanager
def answering(answer: Answer) -> Iterator[int]:
    """Gives the port of a server whose every reply is ``answer``'s."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        thread = threading.Thread(target=_accept, args=(listener, answer, ended))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            thread.join()


def _accept(listener: socket.socket, answer: Answer, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            client, _ = listener.accept()
        except TimeoutError:
            continue
        with client, contextlib.suppress(OSError):
            client.settimeout(0.5)
            _serve(client, answer, ended)


def _serve(client: socket.socket, answer: Answer, ended: threading.Event) -> None:
    waiting = b""
    while not ended.is_set():
        while (found := REQUEST.match(waiting)) is None:
            data = client.recv(1 << 16)
            if not data:
                return
            waiting += data
        waiting = waiting[found.end() :]
        reply = answer(found[0])
        if not reply:
            return
        client.sendall(reply)


def rtsp_script(film: Path) -> tuple[dict[str, bytes], bytes]:
    """The head and body of each reply by method (``{cseq}`` to be filled in), and the media of an H.264 film:
    RTP packets of whole NAL units, framed for TCP."""
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        packets = [bytes(packet) for packet in container.demux(stream) if packet.size]
    units = [_units(packet) for packet in packets]
    sets = {unit[0] & 31: unit for unit in units[0]}
    media, number = b"", 0
    for picture, parts in enumerate(units):
        for position, unit in enumerate(parts):
            last = position == len(parts) - 1
            number += 1
            head = struct.pack(">BBHII", 0x80, 96 | (0x80 if last else 0), number, picture * 9000, 7)
            media += struct.pack(">BBH", 0x24, 0, len(head + unit)) + head + unit
    assert {7, 8} <= set(sets)
    sdp = (
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\na=control:*\r\nm=video 0 RTP/AVP 96\r\n"
        b"a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"
    )
    return {
        "OPTIONS": _reply(b"Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"),
        "DESCRIBE": _reply(b"Content-Type: application/sdp\r\nContent-Base: rtsp://127.0.0.1/a/\r\n", sdp),
        "SETUP": _reply(b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 12345;timeout=60\r\n"),
        "PLAY": _reply(b"Session: 12345\r\nRTP-Info: url=rtsp://127.0.0.1/a/track1;seq=1;rtptime=0\r\n"),
        "GET_PARAMETER": _reply(b"Session: 12345\r\n"),
        "TEARDOWN": b"",
    }, media


def _reply(headers: bytes, body: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n" + headers + length + b"\r\n" + body


def _units(packet: bytes) -> list[bytes]:
    """NAL units of an Annex B packet."""
    return [unit for unit in re.split(rb"\x00\x00\x00?\x01", packet) if unit]

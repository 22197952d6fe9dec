"""Live sources: a real RTSP server, Digest and TLS before it, and hosts that do not answer."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice, pairwise
from typing import Any

import pytest

from pipeline import errors
from pipeline.backends.source_ffmpeg import FfmpegSource, open_source
from tests.contract.test_source import RATE, SECRET, make_clip, opened, refusal, settings
from tests.fixtures.relay import Relay
from tests.fixtures.rtsp import RtspServer


@pytest.fixture
def served(rtsp_server: RtspServer) -> RtspServer:
    """A running RTSP server that has ``clip.mp4``."""
    make_clip(rtsp_server.folder / "clip.mp4")
    return rtsp_server


def live(url: str, **changes: Any) -> FfmpegSource:
    return opened(url, kind="live", **changes)


def test_rtsp_gives_live_packets_and_the_sender_s_clock(served: RtspServer) -> None:
    before = time.time()
    with live(served.url("clip.mp4", loop=True)) as source:
        found = list(islice(source, 40))
        told = source.sender_time()
    assert source.kind == "live"
    assert source.info.codec == "h264"
    assert source.info.duration_s is None
    assert (found[0].time_s, found[0].keyframe) == (0.0, True)
    assert all(0 <= b.time_s - a.time_s < 0.2 for a, b in pairwise(found))
    assert found[-1].time_s == pytest.approx(39 / RATE, abs=0.1)
    assert told is not None
    assert before - 5 < told < time.time() + 5


class Rests(threading.Event):
    """Counts how often it is waited for."""

    count = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.count += 1
        return super().wait(timeout)


def test_rtsp_is_read_in_naps_that_lose_nothing(served: RtspServer) -> None:
    """A reader that woke up for each network packet would spend a quarter of its time on that."""
    stop = Rests()
    with open_source(settings(served.url("clip.mp4", loop=True), kind="live"), stop=stop) as source:
        stop.count = 0
        found = list(islice(source, 40))
    assert 5 <= stop.count <= 40
    assert [b.time_s - a.time_s for a, b in pairwise(found)] == pytest.approx([1 / RATE] * 39, abs=0.02)


def test_a_server_that_hangs_up_is_an_end_and_can_be_opened_again(served: RtspServer) -> None:
    url = served.url("clip.mp4", loop=True)
    with live(url) as source:
        reading = iter(source)
        next(reading)
        served.stop()
        with pytest.raises((errors.SourceEnded, errors.SourceRefused)):
            list(reading)
    assert "connection refused" in refusal(url, errors.SourceRefused, kind="live")
    served.start()
    with live(url) as source:
        assert next(iter(source)).time_s == 0.0


def test_a_live_stream_that_falls_silent_times_out(
    served: RtspServer, rtsp_relay: Callable[..., Relay]
) -> None:
    relay = rtsp_relay(served.port)
    with live(served.url("clip.mp4", loop=True, port=relay.port), read_timeout_s=0.5) as source:
        reading = iter(source)
        next(reading)
        relay.silence.set()
        with pytest.raises(errors.SourceTimeout, match=r"within 0\.5 s"):
            list(reading)


def test_digest_credentials_are_used_and_never_shown(
    served: RtspServer, rtsp_relay: Callable[..., Relay]
) -> None:
    relay = rtsp_relay(served.port, user="cam", password=f"{SECRET}/@:")
    url = served.url("clip.mp4", port=relay.port, user=f"cam:{SECRET}%2F%40%3A")
    with live(url) as source:
        first = next(iter(source))
        shown = f"{source!r} {source._settings!r} {first!r}"
    assert relay.granted >= 4
    assert SECRET not in shown
    wrong = served.url("clip.mp4", port=relay.port, user=f"cam:{SECRET}")
    text = refusal(wrong, errors.SourceAuth, kind="live")
    assert text.startswith(f"rtsp://***@127.0.0.1:{relay.port}/clip.mp4: ")
    assert "check user and password" in text
    refusal(served.url("clip.mp4", port=relay.port), errors.SourceAuth, kind="live")


def test_a_path_that_the_server_does_not_have_is_not_found(served: RtspServer) -> None:
    assert "404" in refusal(served.url("none.mp4"), errors.SourceNotFound, kind="live")


def test_a_transport_that_the_server_lacks_names_the_other_one(served: RtspServer) -> None:
    url = served.url("clip.mp4")
    assert "try transport: tcp" in refusal(url, errors.SourceUnsupported, kind="live", transport="udp")


def test_rtsps_is_verified_against_the_given_authority(
    served: RtspServer, rtsp_relay: Callable[..., Relay], certificate: Any
) -> None:
    url = served.url("clip.mp4", port=rtsp_relay(served.port, tls=True).port).replace("rtsp:", "rtsps:")
    with live(url, tls_ca=str(certificate.certificate)) as source:
        assert next(iter(source)).keyframe
    with live(url, tls_verify=False) as source:
        assert next(iter(source)).keyframe
    assert "TLS failed" in refusal(url, errors.SourceTls, kind="live")


# Hosts that do not answer, whatever the protocol


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "rtmp", "http", "https"])
def test_a_port_that_says_nothing_times_out_within_the_deadline(mute_port: int, scheme: str) -> None:
    started = time.monotonic()
    key = SECRET if scheme == "rtmp" else "stream1"
    url = f"{scheme}://u:{SECRET}@127.0.0.1:{mute_port}/live/{key}?k={SECRET}"
    refusal(url, errors.SourceTimeout, kind="live", open_timeout_s=0.6)
    assert time.monotonic() - started < 4  # 5 s, if nobody sets it


@pytest.fixture(params=["closes", "resets"])
def rude_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port whose server closes every connection as soon as it has accepted it, or resets it as soon as it
    hears something."""
    resets = request.param == "resets"

    def accept() -> None:
        with suppress(OSError):
            while True:
                with server.accept()[0] as connection, suppress(ConnectionError):
                    if resets:
                        connection.recv(1)
                        no_farewell = struct.pack("ii", 1, 0)
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_farewell)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, name="rude server")
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "rtmp", "rtmps", "http", "https"])
def test_a_server_that_hangs_up_at_once_is_refused_and_no_broken_film(rude_port: int, scheme: str) -> None:
    text = refusal(f"{scheme}://127.0.0.1:{rude_port}/live/x?k={SECRET}", errors.SourceRefused, kind="live")
    assert "closed the connection" in text or "Connection reset" in text


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "http", "https"])
def test_a_closed_port_is_refused(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "refused" in refusal(f"{scheme}://127.0.0.1:{port}/a", errors.SourceRefused, kind="live").lower()


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "http"])
def test_a_host_that_does_not_resolve_is_refused(scheme: str) -> None:
    text = refusal(f"{scheme}://no-such-host.invalid/a", errors.SourceRefused, kind="live")
    assert "does not resolve" in text

"""Where an RTSP server may lead: nowhere that was not allowed, and never with its neighbour's password."""

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline import errors
from pipeline.flow.source import Packet
from pipeline.inputs import Reach
from tests.contract.test_source import SECRET, opened, refusal
from tests.fixtures.media import Clips
from tests.fuzz.servers import answering, rtsp_script

LOGIN = base64.b64encode(f"u:{SECRET}".encode())


class Camera:
    """Plays a film to whoever has logged in. ``leads`` gives the redirect for the n-th DESCRIBE, if any."""

    def __init__(self, film: Path, leads: Callable[[int], str | None]) -> None:
        self.heard: list[bytes] = []
        self._replies, self._media = rtsp_script(film)
        self._leads = leads
        self._described = 0

    def __call__(self, request: bytes) -> bytes:
        self.heard.append(request)
        method = request.split(b" ", 1)[0].decode()
        cseq = request.lower().partition(b"cseq:")[2].split(b"\r\n")[0].strip()
        if method == "DESCRIBE":
            self._described += 1
            target = self._leads(self._described)
            if target is not None:
                return b"RTSP/1.0 302 Found\r\nCSeq: %b\r\nLocation: %b\r\n\r\n" % (cseq, target.encode())
            if b"authorization" not in request.lower():
                head = b"RTSP/1.0 401 Unauthorized\r\nCSeq: %b\r\n" % cseq
                return head + b'WWW-Authenticate: Basic realm="x"\r\n\r\n'
        reply = self._replies[method].replace(b"{cseq}", cseq)
        return reply + self._media if method == "PLAY" else reply


@pytest.fixture
def film(clips: Clips) -> Path:
    return clips(suffix=".ts", options={"bf": "0"})


@pytest.fixture
def start() -> Iterator[Callable[[Camera], int]]:
    with ExitStack() as stack:
        yield lambda camera: stack.enter_context(answering(camera))


@pytest.fixture
def neighbour() -> Iterator[tuple[str, threading.Event]]:
    """An address of another host, and whether anybody came."""
    came = threading.Event()
    with socket.create_server(("127.0.0.2", 0)) as listener:
        listener.settimeout(5)

        def accept() -> None:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            came.set()
            client.close()

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"rtsp://127.0.0.2:{listener.getsockname()[1]}/inside", came
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def url(port: int) -> str:
    return f"rtsp://u:{SECRET}@127.0.0.1:{port}/a"


def pictures(port: int, **changes: object) -> int:
    found: list[Packet] = []
    with opened(url(port), kind="live", **changes) as source, pytest.raises(errors.SourceEnded):
        found.extend(source)
    return len(found)


def test_a_camera_that_leads_nowhere_is_played(film: Path, start: Callable[[Camera], int]) -> None:
    camera = Camera(film, lambda _: None)
    assert pictures(start(camera)) > 10
    assert LOGIN not in camera.heard[0], "the first question is without credentials"
    assert any(LOGIN in request for request in camera.heard)


def test_another_host_is_not_even_contacted(
    film: Path, start: Callable[[Camera], int], neighbour: tuple[str, threading.Event]
) -> None:
    target, came = neighbour
    text = refusal(url(start(Camera(film, lambda _: target))), errors.SourceRefused, kind="live")
    assert "must stay on its host" in text
    assert not came.is_set()
    reach = Reach(hosts=("127.0.0.*",))
    text = refusal(url(start(Camera(film, lambda _: target))), errors.SourceRefused, kind="live", reach=reach)
    assert "private_redirects" in text


def test_a_redirect_on_the_same_server_keeps_the_login(film: Path, start: Callable[[Camera], int]) -> None:
    port = 0
    camera = Camera(film, lambda number: f"rtsp://127.0.0.1:{port}/b" if number == 1 else None)
    port = start(camera)
    assert pictures(port) > 10
    assert camera.heard[1].startswith(f"DESCRIBE rtsp://127.0.0.1:{port}/b ".encode())
    assert any(LOGIN in request for request in camera.heard)


def test_another_allowed_server_does_not_get_the_password(film: Path, start: Callable[[Camera], int]) -> None:
    other = Camera(film, lambda _: None)
    other_port = start(other)
    first = start(Camera(film, lambda _: f"rtsp://localhost:{other_port}/b"))
    reach = Reach(hosts=("127.0.0.1", "localhost"), private_redirects=True)
    refusal(url(first), errors.SourceAuth, kind="live", reach=reach)
    assert other.heard
    assert not any(b"authorization" in request.lower() for request in other.heard)


def test_a_server_that_leads_ffmpeg_elsewhere_after_all_is_not_watched(
    film: Path, start: Callable[[Camera], int]
) -> None:
    """Good when asked beforehand, it leads FFmpeg to another server of the same film."""
    other = Camera(film, lambda _: None)
    other_port = start(other)
    camera = Camera(film, lambda number: f"rtsp://x:y@127.0.0.1:{other_port}/b" if number > 1 else None)
    assert "led FFmpeg to" in refusal(url(start(camera)), errors.SourceRefused, kind="live")


def test_redirects_in_a_circle_and_to_other_schemes_are_refused(
    film: Path, start: Callable[[Camera], int]
) -> None:
    port = 0
    circle = Camera(film, lambda _: f"rtsp://127.0.0.1:{port}/a")
    port = start(circle)
    assert "redirects more than 5 times" in refusal(url(port), errors.SourceRefused, kind="live")
    for target in ("file:///etc/passwd", "http://127.0.0.1/", "tcp://127.0.0.1:22"):
        text = refusal(
            url(start(Camera(film, lambda _, to=target: to))),  # type: ignore[misc]
            errors.SourceRefused,
            kind="live",
        )
        assert "may only name rtsp:// and rtsps://" in text


def test_a_secure_stream_does_not_become_a_plain_one() -> None:
    with pytest.raises(errors.SourceRefused, match="may only name rtsps://"):
        Reach().admit_next("rtsps://a.example/x", "rtsp://a.example/x", ("rtsps",))

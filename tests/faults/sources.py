"""Cameras that misbehave on command: a small RTSP server that plays from a script, and what strikes real
servers and the way to them. Each fault counts that it struck: one that never did proves nothing.

All listen on 127.0.0.0/8, each camera on an address of its own, as cameras do."""

import contextlib
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

from pipeline.backends.encode_ffmpeg import Rgb, write_clip
from tests.fixtures.proxy import Proxy, proxied
from tests.fixtures.rtsp import RtspServer

RATE = 10
GOP_S = 0.5
CYCLE_S = 5.0
RED_S = 2.0
"""Of each cycle so many seconds are red: what the tests' model flags."""
TICKS = 90_000
REQUEST = re.compile(rb"(?s)([A-Z_]+) .*?CSeq: (\d+).*?\r\n\r\n")


def red_and_blue(size: tuple[int, int]) -> Iterator[Rgb]:
    """One cycle: blue, then red, with a grain that moves."""
    width, height = size
    grain = np.random.default_rng(3).integers(0, 40, (height, width, 3), np.uint8)
    for number in range(round(CYCLE_S * RATE)):
        picture = np.roll(grain, number, axis=1).copy()
        red = number >= (CYCLE_S - RED_S) * RATE
        picture[..., 0 if red else 2] += 200
        yield picture


def reel_file(path: Path, *, size: tuple[int, int] = (96, 64), codec: str = "libx264") -> Path:
    """One cycle, to be played over and over."""
    options = {"preset": "ultrafast", "bf": "0"} if codec == "libx264" else None
    return write_clip(
        path, red_and_blue(size), rate=RATE, gop=round(GOP_S * RATE), codec=codec, options=options
    )


@dataclass(frozen=True)
class Reel:
    """An encoded film, picture by picture, each as its NAL units."""

    encoding: str
    pictures: list[list[bytes]]

    @classmethod
    def of(cls, path: Path) -> "Reel":
        """Read a raw H.264 or H.265 file (``.h264``, ``.hevc``); its parameter sets are in its keyframes."""
        with av.open(str(path)) as container:
            packets = [bytes(p) for p in container.demux(container.streams.video[0]) if p.size]
        pictures = [[u for u in re.split(rb"\x00\x00\x00?\x01", packet) if u] for packet in packets]
        return cls("H265" if path.suffix == ".hevc" else "H264", pictures)


class HangUp(Exception):
    """The camera ends the connection."""


@dataclass
class Player:
    """One viewer of a camera. ``ticks`` is the time stamp of the next picture."""

    camera: "Camera"
    client: socket.socket
    reel: Reel
    ticks: int = 12_345
    number: int = 0
    place: int = 0
    due: float = field(default_factory=time.monotonic)

    @property
    def troubled(self) -> bool:
        return self.camera.active.is_set() and not self.camera.ended.is_set()

    def hit(self) -> None:
        self.camera.struck += 1

    def wait(self, seconds: float) -> None:
        """Let time pass, but no longer than until the camera ends."""
        self.camera.ended.wait(max(0.0, seconds))

    def show(self, place: int, *, step: int = TICKS // RATE) -> bytes:
        """The picture of this place as RTP, framed for TCP; time goes on by ``step``."""
        units, data = self.reel.pictures[place % len(self.reel.pictures)], b""
        for position, unit in enumerate(units):
            marker = 0x80 if position == len(units) - 1 else 0
            self.number = (self.number + 1) & 0xFFFF
            head = struct.pack(">BBHII", 0x80, 96 | marker, self.number, self.ticks & 0xFFFFFFFF, 7)
            data += struct.pack(">BBH", 0x24, 0, len(head) + len(unit)) + head + unit
        self.ticks += step
        return data

    def next(self, *, step: int = TICKS // RATE) -> bytes:
        self.place += 1
        return self.show(self.place - 1, step=step)

    def send(self, data: bytes) -> None:
        """Give bytes to the viewer, read away what it says; a viewer that takes nothing is left."""
        if select.select([self.client], [], [], 0)[0] and not self.client.recv(1 << 16):
            raise HangUp
        self.client.sendall(data)

    def play(self, seconds: float | None = None) -> None:
        """Play as a good camera does, for so long or until the state of trouble changes."""
        until, troubled = time.monotonic() + (seconds or 0.0), self.troubled
        while not self.camera.ended.is_set() and self.troubled == troubled:
            if seconds is not None and time.monotonic() >= until:
                return
            self.send(self.next())
            self.pace(1.0 / RATE)

    def pace(self, seconds: float) -> None:
        self.due = max(self.due + seconds, time.monotonic() - 1.0)
        self.wait(self.due - time.monotonic())


Trouble = Callable[[Player], None]


def stalls(player: Player) -> None:
    """Nothing more comes; the connection stays."""
    player.hit()
    while player.troubled:
        player.wait(0.1)
    raise HangUp


def drips(player: Player) -> None:
    """A byte a second."""
    for byte in player.show(0):
        if not player.troubled:
            break
        player.send(bytes([byte]))
        player.hit()
        player.wait(1.0)
    raise HangUp


def floods(player: Player) -> None:
    """Everything at once, as fast as it is taken."""
    while player.troubled:
        player.send(b"".join(player.next() for _ in range(20)))
        player.hit()
    player.due = time.monotonic()


def clock_jumps(player: Player) -> None:
    """An hour forward, two back, every second and a half."""
    for hours in (1, -2):
        if player.troubled:
            player.ticks = max(0, player.ticks + hours * 3600 * TICKS)
            player.hit()
            player.play(1.5)


def size_changes(player: Player) -> None:
    """Another picture size in the middle of a session, and back."""
    for reel in (player.camera.reels[1], player.camera.reels[0]):
        player.reel, player.place = reel, 0
        player.hit()
        player.play(2.0)
    player.reel, player.place = player.camera.reels[0], 0


def codec_changes(player: Player) -> None:
    """The camera comes back with another codec, and at last with the first one."""
    other = player.camera.reels[1]
    if player.reel is not other:
        player.camera.shown = other
        raise HangUp
    player.hit()
    player.play()
    player.camera.shown = player.camera.reels[0]
    raise HangUp


def one_picture(player: Player) -> None:
    """The same picture for ever, with time going on."""
    while player.troubled:
        player.send(player.show(0))
        player.hit()
        player.pace(1.0 / RATE)


def ends_and_restarts(player: Player) -> None:
    player.play(1.7)
    player.hit()
    raise HangUp


def no_rate(player: Player) -> None:
    """0 pictures a second: all bear the same time."""
    while player.troubled:
        player.send(player.next(step=0))
        player.hit()
        player.pace(1.0 / RATE)
    player.ticks += TICKS


def thousand_a_second(player: Player) -> None:
    while player.troubled:
        player.send(b"".join(player.next(step=TICKS // 1000) for _ in range(50)))
        player.hit()
        player.pace(0.05)


CAMERA_TROUBLES: dict[str, Trouble] = {
    "stalls for ever": stalls,
    "drips a byte a second": drips,
    "floods": floods,
    "jumps its clock": clock_jumps,
    "changes its size": size_changes,
    "changes its codec": codec_changes,
    "repeats one picture": one_picture,
    "ends and restarts": ends_and_restarts,
    "sends 0 fps": no_rate,
    "sends 1000 fps": thousand_a_second,
}


class Camera:
    """An RTSP server of one film on an address of its own. In ``trouble`` while ``active`` is set."""

    def __init__(self, reels: list[Reel], trouble: Trouble | None, address: str) -> None:
        self.reels = reels
        self.shown = reels[0]
        self.trouble = trouble
        self.address = address
        self.struck = 0
        self.active, self.ended = threading.Event(), threading.Event()
        self._listener = socket.create_server((address, 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, name=f"camera {address}")]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"rtsp://{self.address}:{self.port}/film"

    def close(self) -> None:
        """End all viewers and threads."""
        self.ended.set()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        self._listener.settimeout(0.1)
        while not self.ended.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            viewer = threading.Thread(target=self._serve, args=(client,), name=f"viewer {self.address}")
            self._threads.append(viewer)
            viewer.start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, HangUp):
            client.settimeout(2.0)
            reel = self.shown
            self._greet(client, reel)
            player = Player(self, client, reel)
            while not self.ended.is_set():
                if player.troubled and self.trouble is not None:
                    self.trouble(player)
                else:
                    player.play()

    def _greet(self, client: socket.socket, reel: Reel) -> None:
        """Answer until the viewer says PLAY."""
        waiting = b""
        while True:
            while (found := REQUEST.match(waiting)) is None:
                data = client.recv(1 << 16)
                if not data:
                    raise HangUp
                waiting += data
            waiting = waiting[found.end() :]
            method, cseq = found[1].decode(), found[2]
            client.sendall(_reply(method, cseq, self.url, reel))
            if method == "PLAY":
                return


def _reply(method: str, cseq: bytes, url: str, reel: Reel) -> bytes:
    head, body = {
        "OPTIONS": ("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN", ""),
        "DESCRIBE": (f"Content-Type: application/sdp\r\nContent-Base: {url}/", _sdp(reel)),
        "SETUP": ("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 12345;timeout=60", ""),
    }.get(method, ("Session: 12345", ""))
    length = f"\r\nContent-Length: {len(body)}" if body else ""
    return b"RTSP/1.0 200 OK\r\nCSeq: " + cseq + f"\r\n{head}{length}\r\n\r\n{body}".encode()


def _sdp(reel: Reel) -> str:
    lines = [
        "v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=x", "t=0 0", "a=control:*", "m=video 0 RTP/AVP 96",
        f"a=rtpmap:96 {reel.encoding}/{TICKS}",
    ]  # fmt: skip
    if reel.encoding == "H264":
        lines.append("a=fmtp:96 packetization-mode=1")
    return "".join(f"{line}\r\n" for line in [*lines, "a=control:track1"])


@dataclass
class Hazard:
    """A fault of a source as the tests use it: its streams, how it strikes, how it ends.

    ``silent``: nothing can be screened while it lasts, and coverage must say so."""

    name: str
    streams: dict[str, str]
    strike: Callable[[], None]
    heal: Callable[[], None]
    struck: Callable[[], int]
    silent: bool = False


class Troupe:
    """Makes hazards, and ends them all."""

    def __init__(self, folder: Path) -> None:
        self._stack = contextlib.ExitStack()
        self._folder = folder
        self._addresses = iter(range(1, 250))
        self.film = reel_file(folder / "film.h264")
        self.reels = {
            "film": Reel.of(self.film),
            "small": Reel.of(reel_file(folder / "small.h264", size=(64, 48))),
            "h265": Reel.of(reel_file(folder / "film.hevc", codec="libx265")),
        }

    def close(self) -> None:
        self._stack.close()

    def camera(self, trouble: Trouble | None = None, other: str | None = None) -> Camera:
        reels = [self.reels["film"]] + ([self.reels[other]] if other else [])
        camera = Camera(reels, trouble, f"127.0.1.{next(self._addresses)}")
        self._stack.callback(camera.close)
        return camera

    def troubled_camera(self, name: str) -> Hazard:
        """One of ``CAMERA_TROUBLES``."""
        other = {"changes its size": "small", "changes its codec": "h265"}.get(name)
        camera = self.camera(CAMERA_TROUBLES[name], other)
        return Hazard(
            name,
            {slug(name): camera.url},
            camera.active.set,
            camera.active.clear,
            lambda: camera.struck,
            silent=name in ("stalls for ever", "drips a byte a second"),
        )

    def server(self) -> RtspServer:
        """A real one."""
        folder = self._folder / f"served-{next(self._addresses)}"
        folder.mkdir()
        reel_file(folder / "film.mp4")
        server = RtspServer(folder)
        server.start()
        self._stack.callback(server.stop)
        return server

    def killed_server(self, name: str, streams: int) -> Hazard:
        """A real server of so many streams that is killed, and started again on the same port."""
        server, kills = self.server(), [0]

        def kill() -> None:
            server.stop()
            kills[0] += 1

        ids = [slug(name) if streams == 1 else f"{slug(name)}-{number:02}" for number in range(streams)]
        url = server.url("film.mp4", loop=True)
        return Hazard(name, dict.fromkeys(ids, url), kill, server.start, lambda: kills[0], silent=True)

    def bad_way(self, name: str, strike: Callable[[Proxy], None], kind: str, *, silent: bool) -> Hazard:
        """A good camera at the end of a way that misbehaves."""
        camera = Camera([self.reels["film"]], None, "127.0.0.1")
        self._stack.callback(camera.close)
        proxy = self._stack.enter_context(proxied(camera.port))
        return Hazard(
            name,
            {slug(name): f"rtsp://127.0.0.1:{proxy.port}/film"},
            lambda: strike(proxy),
            proxy.heal,
            lambda: {str(key): count for key, count in proxy.struck.items()}.get(kind, 0),
            silent=silent,
        )


def _latency(proxy: Proxy) -> None:
    proxy.latency_s = 0.4


def _hole(proxy: Proxy) -> None:
    proxy.black_hole = True


def _refuse(proxy: Proxy) -> None:
    proxy.refuse = True
    proxy.reset()


def _cut(proxy: Proxy) -> None:
    proxy.cut_reply_after(b"PLAY ")
    proxy.reset()


WAYS: dict[str, tuple[Callable[[Proxy], None], str, bool]] = {
    "latency on the way": (_latency, "latency", False),
    "reset on the way": (Proxy.reset, "reset", False),
    "cut before the answer": (_cut, "cut_reply", False),
    "black hole on the way": (_hole, "black_hole", True),
    "half-closed on the way": (Proxy.half_close, "half_close", False),
    "refused on the way": (_refuse, "refuse", True),
}
KILLED = "server killed and restarted"
MANY = "all lost at once"
SOURCE_FAULTS = (*CAMERA_TROUBLES, *WAYS, KILLED, MANY)


def hazards(troupe: Troupe, *, many: int) -> list[Hazard]:
    """All source faults; ``many`` streams are lost at once."""
    found = [troupe.troubled_camera(name) for name in CAMERA_TROUBLES]
    found += [
        troupe.bad_way(name, strike, kind, silent=silent) for name, (strike, kind, silent) in WAYS.items()
    ]
    return [*found, troupe.killed_server(KILLED, 1), troupe.killed_server(MANY, many)]


def slug(name: str) -> str:
    return name.replace(" ", "-")

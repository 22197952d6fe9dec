"""What is fuzzed: each target is a function of a seeded generator and a folder that raises what went wrong.

It gives a word on how the case ended. Errors that the code under test promises are let through; the child
sorts them out."""

import json
import random
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from pipeline import config
from pipeline.backends import registry
from pipeline.backends.read_redis import event_of
from pipeline.backends.source_ffmpeg import SourceSettings, open_source
from pipeline.engines import load_manifest
from pipeline.errors import DecodeError, SourceError
from pipeline.events import Event
from pipeline.flow.frames import FramePool, InputSpec
from pipeline.flow.pick import pictures
from pipeline.flow.sample import Sampler
from pipeline.flow.sample_ahead import with_last
from pipeline.flow.sample_rules import SamplingRules
from pipeline.flow.source import Kind
from tests.fixtures.own_model import write_manifest
from tests.fixtures.tiny_onnx import mean_colour_model
from tests.fuzz import corpus
from tests.fuzz.mutate import damaged, misspelt
from tests.fuzz.servers import answering, rtsp_script

Target = Callable[[random.Random, Path], str]
ROOT = Path(__file__).parents[2]
_CONFIG = (ROOT / "tests/fuzz/seed.yaml").read_text()


def film(rng: random.Random, folder: Path) -> str:
    """A damaged file through source, sampler, decoder and frame pool."""
    data, suffix = damaged_film(rng, folder / "corpus")
    path = folder / f"case{suffix}"
    path.write_bytes(data)
    return _screened(str(path), "file", rng)


def damaged_film(rng: random.Random, films: Path) -> tuple[bytes, str]:
    """One film of the corpus in ``films``, damaged, and its suffix."""
    seed = rng.choice(corpus.make(films))
    return damaged(seed.read_bytes(), rng), seed.suffix


def http(rng: random.Random, folder: Path) -> str:
    """Damaged replies of a web server: heads, playlists, segments, whole films."""
    films = {path.name: path.read_bytes() for path in corpus.make(folder / "corpus")}
    files = {
        "/master": b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=90000,RESOLUTION=96x64\n/list\n",
        "/list": b"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n#EXT-X-MEDIA-SEQUENCE:0\n"
        b"#EXTINF:3.0,\n/h264.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:3.0,\n/hevc.ts\n#EXT-X-ENDLIST\n",
        **{f"/{name}": data for name, data in films.items()},
    }
    what = rng.choice(("head", "head", "body", "playlist", "playlist", "both"))
    start = rng.choice(("/master", "/list", "/h264.mp4", "/vp9.webm", "/fragments.mp4"))

    def answer(request: bytes) -> bytes:
        path = request.split(b" ", 2)[1].decode("ascii", "replace").partition("?")[0]
        body = files.get(path, b"")
        playlist = body.startswith(b"#EXTM3U")
        if body and (what in ("body", "both") or (what == "playlist" and playlist)):
            body = damaged(body, rng)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nAccept-Ranges: bytes\r\n"
        if b"range: bytes=" in request.lower():
            first = request.lower().split(b"range: bytes=")[1].split(b"-")[0]
            body = body[int(first) :]
            head = head.replace(b"200 OK", b"206 Partial Content")
        if rng.random() < 0.1:
            chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            head, body = head + b"Transfer-Encoding: chunked\r\n", chunks
        else:
            head += b"Content-Length: %d\r\n" % len(body)
        if not body:
            head = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n"
        return (damaged(head, rng, 3) if what in ("head", "both") else head) + b"\r\n" + body

    with answering(answer) as port:
        return _screened(f"http://u:p@127.0.0.1:{port}{start}", "file", rng)


def rtsp(rng: random.Random, folder: Path) -> str:
    """Damaged replies and media of an RTSP server."""
    corpus.make(folder / "corpus")
    replies, media = _conversation(folder / "corpus" / "h264.ts")
    what = rng.choice(("heads", "heads", "media", "both", "nothing"))
    broken = rng.choice(list(replies))

    def answer(request: bytes) -> bytes:
        method = request.split(b" ", 1)[0].decode("ascii", "replace")
        cseq = request.lower().partition(b"cseq:")[2].split(b"\r\n")[0].strip()
        reply = replies.get(method, b"").replace(b"{cseq}", cseq)
        if method == broken and what in ("heads", "both"):
            reply = damaged(reply, rng, 6)
        if method == "PLAY":
            reply += damaged(media, rng) if what in ("media", "both") else media
        return reply

    with answering(answer) as port:
        return _screened(f"rtsp://u:p@127.0.0.1:{port}/a", "live", rng)


def settings(rng: random.Random, folder: Path) -> str:
    """A damaged config file."""
    path = folder / "case.yaml"
    path.write_bytes(misspelt(_CONFIG, rng).encode("utf-8", "surrogatepass"))
    found = config.load(path, {"REDIS_PASSWORD": "x", "CAM": "y"}, config.categories_of)
    for stream in found.streams:
        found.policy_info(stream)
        found.sampling_of(stream)
    return "good"


def event(rng: random.Random, folder: Path) -> str:
    """A damaged event, read back from Redis as the client kit does."""
    seeds = sorted((ROOT / "tests/golden").glob("*.json"))
    body = json.dumps(json.loads(rng.choice(seeds).read_text()))
    text = (
        misspelt(body, rng) if rng.random() < 0.8 else damaged(body.encode(), rng).decode("utf-8", "replace")
    )
    try:
        found = Event.from_json(text)
    except ValueError:  # what it promises
        assert event_of("1-0", {"event": text}) is None
        return "refused"
    for name, value in found.fields().items():
        assert isinstance(name, str)
        assert isinstance(value, str)
        value.encode()
    assert event_of("1-0", {"event": text}) == found
    return "good"


def manifest(rng: random.Random, folder: Path) -> str:
    """A damaged manifest of a user's model."""
    mean_colour_model(folder / "mine.onnx")
    path = write_manifest(folder)
    path.write_bytes(misspelt(path.read_text(), rng).encode("utf-8", "surrogatepass"))
    _scored(path)
    return "good"


def onnx(rng: random.Random, folder: Path) -> str:
    """A damaged model file under a right manifest, on each engine."""
    path = mean_colour_model(folder / "mine.onnx")
    path.write_bytes(damaged(path.read_bytes(), rng, 4))
    _scored(write_manifest(folder))
    return "good"


TARGETS: dict[str, Target] = {
    "film": film, "http": http, "rtsp": rtsp, "config": settings, "event": event, "manifest": manifest,
    "onnx": onnx,
}  # fmt: skip


@lru_cache
def _conversation(film: Path) -> tuple[dict[str, bytes], bytes]:
    return rtsp_script(film)


@lru_cache
def _pool() -> FramePool:
    return registry.open_pool(InputSpec(64, 64), 4)


def _screened(url: str, kind: Kind, rng: random.Random) -> str:
    """Read ``url`` as a worker does, without a model."""
    stop = threading.Event()
    asked = SourceSettings(url, kind, open_timeout_s=2.0, read_timeout_s=1.0)
    kept = damage = 0
    with open_source(asked, stop=stop) as source:
        decoder = registry.open_decoder(source.info)
        plan = rng.choice(("auto", "keyframes", "full"))
        rules = SamplingRules(max_gap_s=rng.choice((0.2, 1.0)), plan=plan)  # type: ignore[arg-type]
        sampler = Sampler(rules, kind=source.kind, rng=rng)
        try:
            for packet, last in with_last(source):
                try:
                    for picture in pictures(packet, sampler, decoder, last=last):
                        kept += 1
                        frame = _pool().store(picture, stream=1, sample=kept, live=False, timeout=0)
                        assert frame is not None
                        frame.release()
                except DecodeError:
                    damage += 1
        except SourceError as error:
            if not kept:
                raise
            return f"pictures, then {type(error).__name__}"
        finally:
            decoder.close()
    return "pictures" if kept else "no picture"


def _scored(path: Path) -> None:
    """Load the model of a manifest and score one picture, on every engine of the CPU."""
    import numpy as np

    found = load_manifest(str(path))
    for engine in ("onnxruntime", "openvino"):
        classifier = registry.open_classifier(found, engine=engine, threads=1, max_batch=2)
        scores = classifier.infer(np.zeros((1, *found.spec.slot_shape()), np.float32))
        assert scores.shape == (1, len(found.categories))

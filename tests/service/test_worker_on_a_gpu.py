"""A worker that was told to use a GPU, on a machine without one: what its streams are told of a decoder that
the GPU has not got, or has no room for.

The worker is the real one, in threads of this process; its pool and its engine are the CPU's, and the decoder
of the GPU is one that always refuses, or software."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.backends import registry
from pipeline.backends.registry import Device
from pipeline.config import Config
from pipeline.errors import SourceNoRoom, SourceUnsupported
from pipeline.flow.classify import Classifier
from pipeline.flow.decode import Decoder, Picture
from pipeline.flow.source import Kind, Packet, StreamInfo
from pipeline.manifest import Manifest
from pipeline.service import plan
from pipeline.service.lead import Lead
from pipeline.service.marks import board
from pipeline.service.orders import Add, Done, WorkerPlan
from pipeline.service.session import Position
from pipeline.service.stream import StreamScreen
from pipeline.service.worker import Worker
from tests.fixtures.media import Clips
from tests.fixtures.own_model import write_manifest
from tests.fixtures.tiny_onnx import mean_colour_model

WAIT_S = 60.0
REFUSED = "NVDEC on this GPU does not decode it"
NO_ROOM = "no room on the GPU: 100 MB for one more decoder, 80 MB are free"
OpenOnGpu = Callable[[StreamInfo], Decoder]


class Heard:
    """What a worker says."""

    def __init__(self) -> None:
        self._said: list[Any] = []
        self._changed = threading.Condition()

    def __call__(self, message: Any) -> None:
        with self._changed:
            self._said.append(message)
            self._changed.notify_all()

    @property
    def row(self) -> dict[str, Any]:
        """The stream's row of the newest heartbeat."""
        rows = [said[1]["streams"] for said in self._said if isinstance(said, tuple) and said[0] == "status"]
        return dict(rows[-1][0]) if rows and rows[-1] else {}

    @property
    def events(self) -> list[dict[str, Any]]:
        bodies = [said[1] for said in self._said if isinstance(said, tuple) and said[0] == "event"]
        return [json.loads(body)["data"] for body in bodies]

    @property
    def done(self) -> bool:
        """Whether the stream has left."""
        return any(isinstance(said, Done) for said in self._said)

    def until(self, wanted: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(wanted, WAIT_S), f"it did not come to that: {self.row}"


@pytest.fixture
def working(tmp_path: Path, clips: Clips, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``working(device, open_on_gpu, kind)`` is a worker at work on one stream, told to use a GPU."""
    clip = clips(pictures=240)
    mean_colour_model(tmp_path / "mine.onnx")
    model = str(write_manifest(tmp_path))
    open_decoder = registry.open_decoder
    monkeypatch.setattr(registry, "open_classifier", _on_cpu(registry.open_classifier))
    monkeypatch.setattr(registry, "open_pool", _on_cpu(registry.open_pool))

    @contextmanager
    def at_work(device: str, open_on_gpu: OpenOnGpu, kind: Kind = "live") -> Iterator[Heard]:
        def opened(info: StreamInfo, *, device: Device) -> Decoder:
            return open_on_gpu(info) if device == "gpu" else open_decoder(info, device=device)

        monkeypatch.setattr(registry, "open_decoder", opened)
        live = {"pace": "realtime", "loop": True} if kind == "live" else {}
        stream = {"id": "cam", "url": str(clip), **live}
        keys = {"streams": [stream], "model": model, "device": device, "sampling": {"max_gap_s": 0.5}}
        config = Config.model_validate(keys)
        heard, (ours, theirs) = Heard(), Pipe()
        worker = Worker(_plan(config, tmp_path), heard)
        at = threading.Thread(target=worker.run, args=(theirs,), name="worker")
        at.start()
        try:
            ours.send(Add(1, config.streams[0], kind, time.monotonic(), 0.0))
            yield heard
        finally:
            ours.send("stop")
            at.join(WAIT_S)
            assert not at.is_alive()
            worker.close()

    return at_work


def _on_cpu(opened: Callable[..., Any]) -> Callable[..., Any]:
    def on_cpu(*args: Any, device: Device, **more: Any) -> Any:
        assert device == "gpu"
        return opened(*args, device="cpu", **more)

    return on_cpu


def _plan(config: Config, folder: Path) -> WorkerPlan:
    return WorkerPlan(
        number=1,
        config=config,
        models=tuple(sorted(plan.models_in_use(config))),
        device="gpu",
        cores=2,
        slots=16,
        live_slots=8,
        outbox=folder / "outbox.sqlite",
        board=board(4),
        crash=folder / "crash",
    )


def refusing(_: StreamInfo) -> Decoder:
    raise SourceUnsupported(REFUSED)


def test_with_device_auto_software_decodes_what_the_gpu_does_not_and_the_row_says_why(
    working: Callable[..., Any],
) -> None:
    with working("auto", refusing) as heard:
        heard.until(lambda: heard.row.get("frames", 0) > 2)
        assert heard.row["state"] == "screening"
        assert heard.row["decoder"] == heard.row["reason"] == f"decoded in software: {REFUSED}"


def test_with_device_gpu_it_is_refused_and_nothing_else_decodes_it(working: Callable[..., Any]) -> None:
    with working("gpu", refusing) as heard:
        heard.until(lambda: heard.row.get("reason") == REFUSED)
        heard.until(lambda: heard.row.get("reconnects", 0) > 0)  # it is asked again, and refused again
        assert (heard.row["frames"], heard.row["decoder"]) == (0, "")


def test_a_stream_without_room_says_so_counts_as_overload_and_is_tried_again(
    working: Callable[..., Any],
) -> None:
    in_software = partial(registry.open_decoder, device="cpu")
    room, asked = threading.Event(), list[float]()

    def crowded(info: StreamInfo) -> Decoder:
        asked.append(time.monotonic())
        if not room.is_set():
            raise SourceNoRoom(NO_ROOM)
        return in_software(info)

    with working("auto", crowded) as heard:
        heard.until(lambda: heard.row.get("reason") == NO_ROOM)
        heard.until(lambda: len(asked) > 1 and time.monotonic() - asked[0] > 2.0)
        heard.until(lambda: (heard.row["state"], heard.row["frames"]) == ("lost", 0))
        room.set()
        heard.until(lambda: heard.row.get("frames", 0) > 2)
        heard.until(lambda: any(event.get("cause") == "overload" for event in heard.events))
        assert (heard.row["state"], heard.row["reason"], heard.row["decoder"]) == ("screening", "", "")
        assert heard.row["reconnects"] > 0


def test_no_keyframe_is_decoded_ahead_on_a_gpu(working: Callable[..., Any]) -> None:
    """A picture that another thread decodes is taken when its decoder is closed: a surface of NVDEC would
    be gone by then."""
    in_software = partial(registry.open_decoder, device="cpu")
    threads = set[str]()

    class Told:
        """A decoder that tells which threads decode its keyframes."""

        def __init__(self, decoder: Decoder) -> None:
            self._decoder = decoder

        def still(self, packet: Packet) -> Picture | None:
            threads.add(threading.current_thread().name)
            return self._decoder.still(packet)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._decoder, name)

    with working("gpu", lambda info: cast(Decoder, Told(in_software(info))), "file") as heard:
        heard.until(lambda: heard.done)
    assert threads == {"reader cam"}


def test_at_its_end_a_worker_frees_its_engines(
    working: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TensorRT engine that Python frees at its own end is freed in any order."""
    freed: list[str] = []
    opened = registry.open_classifier

    def told(manifest: Manifest, **more: Any) -> Classifier:
        classifier = opened(manifest, **more)
        monkeypatch.setattr(classifier, "close", lambda: freed.append(manifest.name))
        return classifier

    monkeypatch.setattr(registry, "open_classifier", told)
    with working("auto", refusing) as heard:
        heard.until(lambda: heard.row.get("frames", 0) > 0)
        assert freed == []
    assert freed == ["mine"]


def test_a_row_shows_why_a_stream_is_decoded_in_software() -> None:
    config = Config.model_validate({"streams": [{"id": "cam", "url": "rtsp://127.0.0.1/cam"}]})
    order = Add(1, config.streams[0], "live", time.monotonic(), 0.0)
    position = Position(1.0, decoder="decoded in software: x")
    row = StreamScreen(order, config, {}, position, Lead(None)).status(time.monotonic())
    assert (row["decoder"], row["reason"]) == ("decoded in software: x", "decoded in software: x")
    position.trouble = "the server is away"
    row = StreamScreen(order, config, {}, position, Lead(None)).status(time.monotonic())
    assert (row["decoder"], row["reason"]) == ("decoded in software: x", "the server is away")

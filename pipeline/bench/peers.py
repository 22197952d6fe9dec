"""What others would run, measured in the same way and in the same run: a child process, start-up included."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean

from pipeline import engines
from pipeline.bench import child
from pipeline.engines import load_manifest

Say = Callable[[str], None]
"""Tells a person what is being done."""

GSTREAMER = "gst-launch-1.0"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a program cost: CPU seconds for ``media_s`` seconds of film, ``pictures`` many (0: not counted).

    ``note`` says what it does, or, when it could not be run (``media_s`` 0), why."""

    name: str
    cpu_s: float
    media_s: float
    note: str
    pictures: int = 0

    @property
    def ran(self) -> bool:
        return self.media_s > 0

    @property
    def ms(self) -> float:
        """CPU milliseconds a stream-second."""
        return 1e3 * self.cpu_s / self.media_s

    @property
    def density(self) -> float:
        """Stream-hours a core-hour: how many streams fill one core."""
        return self.media_s / self.cpu_s


def measure(
    film: Path, *, seconds: float, every_s: float, model: str, start_up: bool, say: Say, turn: int
) -> list[Cost]:
    """Every peer on the first ``seconds`` of the film, taking (where it chooses) a picture every ``every_s``.
    Each is measured once a ``turn``, whichever sections of a report want it.

    ``start_up`` False: without what it costs to start, as for a program that runs for ever."""
    costs = []
    for peer in (opencv, keyframes, everything):
        say(f"measuring a peer: {peer.__name__} on {seconds:g} s of film")
        cost = peer(film, seconds, every_s, model, turn)
        costs.append(cost if start_up else _less(cost, peer(film, 0.0, every_s, model, turn)))
    say("measuring a peer: GStreamer")
    read = costs[-1]
    cost = gstreamer(film, every_s, pictures=read.pictures, seconds=read.media_s)
    if cost.ran and not start_up:
        cost = _less(cost, gstreamer(film, every_s, pictures=1, seconds=0.0))
    return [*costs, cost]


def mean(turns: Sequence[Sequence[Cost]]) -> list[Cost]:
    """What each peer cost in several turns of the same work, on average."""
    return [replace(one[0], cpu_s=fmean(cost.cpu_s for cost in one)) for one in zip(*turns, strict=True)]


def _less(cost: Cost, start: Cost) -> Cost:
    return replace(cost, cpu_s=cost.cpu_s - start.cpu_s)


# Below, ``turn`` does nothing but tell one measurement from another.
@cache
def opencv(film: Path, seconds: float, every_s: float, model: str, turn: int) -> Cost:
    """The loop that reads every picture and scores one every ``every_s`` with ONNX Runtime."""
    manifest = load_manifest(model)
    spec = asdict(manifest.spec) | {"weights": str(engines.weights(manifest)), "output": manifest.output_name}
    command = child.python(
        "pipeline.backends.peer_opencv", film, json.dumps(spec), str(every_s), str(seconds)
    )
    note = f"OpenCV reads every picture, ONNX Runtime f32 scores one every {every_s:g} s"
    return _cost("OpenCV loop", command, note)


@cache
def keyframes(film: Path, seconds: float, every_s: float, model: str, turn: int) -> Cost:
    """libavcodec on the keyframes."""
    command = child.python("pipeline.backends.peer_ffmpeg", "keyframes", film, str(seconds))
    return _cost(
        "libavcodec, keyframes",
        command,
        "all keyframes decoded and deblocked on one thread; no resize, no model",
    )


@cache
def everything(film: Path, seconds: float, every_s: float, model: str, turn: int) -> Cost:
    """libavcodec on every picture."""
    command = child.python("pipeline.backends.peer_ffmpeg", "full", film, str(seconds))
    return _cost(
        "libavcodec, all", command, "every picture decoded and deblocked on one thread; no resize, no model"
    )


def gstreamer(film: Path, every_s: float, *, pictures: int, seconds: float) -> Cost:
    """A GStreamer pipeline, where it is installed, on the film's first ``pictures`` (``seconds`` long)."""
    program = shutil.which(GSTREAMER)
    note = f"decodebin, videorate to one picture every {every_s:g} s, videoscale; no model"
    if program is None:
        return Cost("GStreamer", 0.0, 0.0, f"not measured: {GSTREAMER} is not installed")
    used = child.run([program, *gstreamer_pipeline(film, every_s, pictures)])
    return Cost("GStreamer", used.cpu_s, seconds, note, pictures)


def gstreamer_pipeline(film: Path, every_s: float, pictures: int) -> list[str]:
    """The arguments of ``gst-launch-1.0``."""
    stages = (
        ["filesrc", f"location={film}"],
        ["decodebin"],
        ["identity", f"eos-after={pictures}"],
        ["videorate", "drop-only=true"],
        ["videoscale"],
        ["videoconvert"],
        [f"video/x-raw,format=RGB,width=256,height=256,framerate=1000/{round(1000 * every_s)}"],
        ["fakesink", "sync=false"],
    )
    words = [word for stage in stages for word in ("!", *stage)]
    return ["-q", *words[1:]]


def _cost(name: str, command: list[str], note: str) -> Cost:
    used = child.run(command)
    said = json.loads(used.out)
    return Cost(name, used.cpu_s, said["seconds"], note, said["read"])

"""Opens every source for a few seconds, many at a time: what it is, or why it could not be opened."""

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from pipeline import inputs
from pipeline.backends.registry import open_source
from pipeline.backends.source_ffmpeg import SourceSettings
from pipeline.capacity.demand import Choice, Seen, choose
from pipeline.capacity.meter import Costs, Meter
from pipeline.config import Config, Stream
from pipeline.errors import Closed, SourceError, SourceNoVideo
from pipeline.flow.frames import InputSpec
from pipeline.flow.ring import PacketRing
from pipeline.flow.sample import Sampler
from pipeline.flow.sample_ahead import GOPS_TO_TRUST
from pipeline.flow.sample_rules import SamplingRules
from pipeline.flow.source import Kind, Packet, Source, StreamInfo
from pipeline.masking import mask_url
from pipeline.service.crew import Channel, Crew
from pipeline.service.plan import kind_of
from pipeline.service.retry import HostGate

AT_ONCE = 24
"""Sources probed at the same time; of one host at most eight."""
FILE_S = 20.0
"""Of a file so much is read, at most: it does not have to be waited for."""
PROBE_BYTES = 16 * 2**20
"""Encoded bytes read of a source, at most; they are held while it is measured."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A stream and what was seen of it. Of an unreachable one ``seen`` is None, ``reason`` the short word of
    its error and ``text`` the whole of it. ``files`` is how many a folder or glob holds; the first was
    probed."""

    stream: Stream
    kind: Kind
    rules: SamplingRules
    models: tuple[str, ...]
    seen: Seen | None = None
    choice: Choice | None = None
    reason: str = ""
    text: str = ""
    files: int = 1

    @property
    def shown(self) -> str:
        """The stream's URL without credentials."""
        return mask_url(self.stream.url)


@dataclass(frozen=True, slots=True)
class Prober:
    """``seconds`` of each live source are watched. With ``meter`` its pictures are decoded and converted for
    ``specs`` (model → input)."""

    config: Config
    seconds: float
    specs: Mapping[str, InputSpec] = field(default_factory=dict)
    meter: Meter | None = None
    gate: HostGate = field(default_factory=HostGate)

    def probe_all(self, stop: threading.Event, on_done: Callable[[Probe], None]) -> list[Probe]:
        """Probe every stream of the config, in parallel; in the config's order. ``on_done`` hears of each
        in this thread, in the order in which they are done. Ends early when ``stop`` is set."""
        todo, done = list(enumerate(self.config.streams)), Channel[tuple[int, Probe]]()
        found: dict[int, Probe] = {}
        lock, ending = threading.Lock(), threading.Event()

        def work() -> None:
            while not ending.is_set():
                with lock:
                    if not todo:
                        return
                    number, stream = todo.pop(0)
                done.send((number, self.probe(stream, ending)))

        with Crew(ending, done) as crew:  # which ends with the block
            for number in range(min(AT_ONCE, len(todo))):
                crew.start(work, name=f"probe-{number}")
            try:
                while len(found) < len(self.config.streams) and not stop.is_set():
                    for number, probe in done.receive_all(0.2):
                        found[number] = probe
                        on_done(probe)
            except Closed:
                crew.check()
        return [found[number] for number in sorted(found)]

    def probe(self, stream: Stream, stop: threading.Event) -> Probe:
        """Probe one stream."""
        kind = kind_of(stream)
        models = self.config.models_of(stream)
        probe = Probe(stream, kind, self.config.sampling_of(stream), models)
        try:
            if inputs.is_remote(stream.url):
                with self.gate.connecting(inputs.split_url(stream.url).server, stop):
                    return self._open(probe, stream.url, stop)
            files = inputs.expand(stream.url, self.config.reach())
            return self._open(replace(probe, files=len(files)), str(files[0]), stop)
        except SourceError as error:
            return replace(probe, reason=error.reason, text=str(error))

    def _open(self, probe: Probe, url: str, stop: threading.Event) -> Probe:
        stream = probe.stream
        settings = SourceSettings(
            url=url,
            kind=probe.kind,
            transport=stream.transport,
            open_timeout_s=stream.open_timeout_s,
            read_timeout_s=stream.read_timeout_s,
            reach=self.config.reach(),
            tls_ca=str(stream.tls.ca) if stream.tls.ca else None,
            tls_verify=stream.tls.verify,
            limits=self.config.source_limits(),
        )
        with open_source(settings, stop=stop) as source:
            watch = Watch(probe.rules, probe.kind)
            remote = inputs.is_remote(url)
            watch.read(source, self.seconds if remote else FILE_S, remote=remote)
            if not watch.packets:
                raise SourceNoVideo(f"{mask_url(url)}: opened, but no picture came in {self.seconds:g} s")
            choice = choose(probe.rules, watch.gop_s, watch.span_s)
            costs = self._measure(source.info, watch.packets, choice, probe.models)
        return replace(probe, seen=watch.seen(source.info, costs, remote=remote), choice=choice)

    def _measure(
        self, info: StreamInfo, packets: Sequence[Packet], choice: Choice, models: Sequence[str]
    ) -> Costs:
        if self.meter is None:
            return Costs()
        return self.meter.measure(info, packets, choice, [self.specs[name] for name in models])


class Watch:
    """Reads a source for a while, through a sampler and a ring as the service does, so that reading costs
    what it will cost. ``packets`` are kept, up to ``PROBE_BYTES``."""

    def __init__(self, rules: SamplingRules, kind: Kind) -> None:
        self.packets: list[Packet] = []
        self.read_s = 0.0
        self._rules = rules
        self._sampler = Sampler(rules, kind=kind, rng=random.Random())
        self._ring = PacketRing(rules.max_gap_s)
        self._bytes = 0

    @property
    def gop_s(self) -> float | None:
        """The longest distance between keyframes."""
        keys = self._keys()
        return max((after - before for before, after in pairwise(keys)), default=None)

    @property
    def span_s(self) -> float:
        """Seconds of stream time, the last picture's own included."""
        times = [packet.time_s for packet in self.packets]
        span = max(times) - min(times)
        return span * len(times) / (len(times) - 1) if len(times) > 1 else 0.0

    def read(self, source: Source, seconds: float, *, remote: bool) -> None:
        """Read ``seconds`` of stream time; of a remote source no longer than that by the clock, either."""
        until = time.monotonic() + seconds
        begun = time.thread_time()
        try:
            for packet in source:
                self._take(packet)
                late = remote and time.monotonic() > until
                if late or packet.time_s >= seconds or self._bytes > PROBE_BYTES or self._enough():
                    break
        except SourceError:
            if not self.packets:
                raise  # what was seen before it broke off is still true
        self.read_s = time.thread_time() - begun

    def seen(self, info: StreamInfo, costs: Costs, *, remote: bool) -> Seen:
        """What the stream is."""
        span_s = self.span_s
        rate = float(info.frame_rate) if info.frame_rate else None
        if rate is None or len(self.packets) > GOPS_TO_TRUST * 8:
            rate = len(self.packets) / span_s if span_s > 0 else rate or 1.0
        keys = [packet.size for packet in self.packets if packet.keyframe]
        return Seen(
            codec=info.codec,
            width=info.width,
            height=info.height,
            fps=rate,
            gop_s=self.gop_s,
            watched_s=span_s,
            keyframe_bytes=sum(keys) / len(keys),
            bits=self._bits(span_s or 1 / rate),
            remote=remote,
            read_ms=1e3 * self.read_s / span_s if span_s > 0 else None,
            still_ms=costs.still_ms,
            fed_ms=costs.fed_ms,
            convert_ms=costs.convert_ms,
        )

    def _take(self, packet: Packet) -> None:
        self.packets.append(packet)
        self._bytes += packet.size
        self._ring.add(packet)
        for order in self._sampler.take(packet):
            if order.packet is not None and order.wanted:
                if order.kind == "still":
                    self._sampler.kept(order.packet.time_s)
                elif order.kind == "feed":
                    self._sampler.wants(order.packet.time_s)

    def _enough(self) -> bool:
        """Enough GOPs to trust that they go on like this."""
        if not self.packets[-1].keyframe or self.packets[-1].time_s < 2 * self._rules.max_gap_s:
            return False
        return len(self._keys()) > GOPS_TO_TRUST

    def _keys(self) -> list[float]:
        return [packet.time_s for packet in self.packets if packet.keyframe]

    def _bits(self, span_s: float) -> float:
        """Bits a second, over whole GOPs where there is one: a keyframe alone is no measure."""
        last = max(at for at, packet in enumerate(self.packets) if packet.keyframe)
        upto_s = self.packets[last].time_s
        if last == 0 or upto_s <= 0:
            return 8 * sum(packet.size for packet in self.packets) / span_s
        return 8 * sum(packet.size for packet in self.packets[:last]) / upto_s

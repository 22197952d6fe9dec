"""A file by its index gives what reading it from front to back gives, and reads less."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from math import inf
from pathlib import Path
from weakref import WeakSet

import numpy as np
import pytest

from pipeline.backends.encode_ffmpeg import write_clip
from pipeline.backends.source_ffmpeg import FfmpegSource, SourceSettings, open_source
from pipeline.errors import DecodeError
from pipeline.flow.decode import Picture
from pipeline.flow.pick import pictures
from pipeline.flow.rehearse import Sequence
from pipeline.flow.sample import Plan, Sampler, SamplingRules
from pipeline.flow.sample_ahead import with_last
from pipeline.flow.source import Packet
from pipeline.service import sequences
from pipeline.service.admission import Admission, Turns
from pipeline.service.ahead import Ahead, T
from pipeline.service.crew import Crew
from pipeline.service.marks import Marks, board
from pipeline.service.skim import by_index
from tests.fixtures.media import Clips, clips, demux, moving_pictures

__all__ = ["clips"]

CORES = 2


class Pool(Ahead):
    """Counts what it was given to decode."""

    started = 0

    def start(self, work: Callable[[], T]) -> Future[T]:
        self.started += 1
        return super().start(work)


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Threads that decode ahead."""
    ahead = Pool(CORES, CORES + 1)
    with Crew(threading.Event(), ahead) as crew:
        for number in range(ahead.threads):
            crew.start(ahead.run, name=f"ahead {number}")
        yield ahead
        ahead.close()


Found = list[tuple[float, int] | str]


class Counting(FfmpegSource):
    """A source that counts the packets that it gave, and those of a second pass."""

    given = 0
    second: "Counting | None" = None

    def __iter__(self) -> Iterator[Packet]:
        for packet in super().__iter__():
            self.given += 1
            yield packet

    def again(self) -> "Counting":
        self.second = counting(super().again())
        return self.second


def opened(path: Path) -> FfmpegSource:
    return open_source(SourceSettings(url=str(path), kind="file"), stop=threading.Event())


def counting(source: FfmpegSource) -> Counting:
    source.__class__ = Counting
    assert isinstance(source, Counting)
    return source


def look(
    packets: Iterator[tuple[Packet, bool]],
    sampler: Sampler,
    decoder: object,
    watch: tuple[float, float] = (inf, inf),
) -> Found:
    """Every sample, by its time and the sum of its pixels, and every complaint. From the first sample after
    ``watch`` begins it is watched until it ends."""
    found: Found = []
    for packet, last in packets:
        try:
            for picture in pictures(packet, sampler, decoder, last=last):  # type: ignore[arg-type]
                found.append((round(picture.time_s, 6), int(picture.surface.to_ndarray().astype(int).sum())))
        except DecodeError:
            found.append(f"damaged at {packet.time_s:.3f}")
        if found and isinstance(found[-1], tuple) and found[-1][0] >= watch[0]:
            sampler.watch(watch[1])
    return found


def both_ways(
    path: Path, rules: SamplingRules, pool: Pool, watch: tuple[float, float] = (inf, inf)
) -> tuple[Found, Found, int]:
    """What is found from front to back, what by the index, and how many packets that read."""
    admission = Admission("cpu", Turns(CORES, Marks(board(CORES))), 1)
    with opened(path) as source, admission.decoder(source.info) as decoder:
        plain = look(with_last(source), Sampler(rules, kind="file", rng=random.Random(4)), decoder, watch)
    sampler = Sampler(rules, kind="file", rng=random.Random(4))
    with (
        counting(opened(path)) as source,
        admission.decoder(source.info) as decoder,
        by_index(source, sampler, decoder, admission, pool) as skim,
    ):
        assert skim is not None
        assert source.second is not None
        found = look(skim.packets(None), sampler, skim.decoder, watch)
        read = source.given + source.second.given
    assert [pool.reserve() for _ in range(CORES + 2)].count(True) == (0 if pool.paused else CORES + 1)
    return plain, found, read


FILMS = {
    "a keyframe when one is due": {"gop": 24},
    "keyframes to spare": {"gop": 6},
    "every picture a keyframe": {"gop": 1},
    "keyframes too rare": {"gop": 60},
    "matroska": {"gop": 6, "suffix": ".mkv"},
    "MPEG-TS": {"gop": 6, "suffix": ".ts"},
    "MPEG-TS, B-pictures": {"gop": 24, "suffix": ".ts", "options": {"bf": "3", "b_strategy": "0"}},
    "MPEG-TS, HEVC": {"gop": 12, "suffix": ".ts", "codec": "libx265"},
    "MPEG-TS, MPEG-2": {"gop": 12, "suffix": ".ts", "codec": "mpeg2video"},
    "AVI": {"gop": 6, "suffix": ".avi", "codec": "mpeg4"},
    "B-pictures": {"gop": 24, "options": {"bf": "3", "b_strategy": "0"}},
    "HEVC": {"gop": 12, "codec": "libx265"},
}


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize(
    "rules", [{}, {"audit": 0.4}, {"plan": "keyframes"}], ids=["auto", "audited", "keyframes"]
)
def test_the_samples_are_those_of_reading_from_front_to_back(
    clips: Clips, pool: Pool, name: str, rules: dict[str, object]
) -> None:
    path = clips(pictures=241, **FILMS[name])  # type: ignore[arg-type]
    plain, found, _ = both_ways(path, SamplingRules(max_gap_s=1.0, **rules), pool)  # type: ignore[arg-type]
    assert found == plain
    assert len(found) >= 5


@pytest.mark.parametrize("paused", [False, True], ids=["ahead", "in turn"])
def test_damage_is_told_and_survived_in_the_same_way(
    clips: Clips, tmp_path: Path, pool: Pool, paused: bool
) -> None:
    pool.paused = paused
    whole = clips(pictures=241, gop=12)
    path = tmp_path / "damaged.mp4"
    spoilt = bytearray(whole.read_bytes())
    keyframes = [packet.data for packet in demux(whole)[1] if packet.keyframe]
    for packet in keyframes[3:5] + keyframes[9:10]:
        spoilt[packet.pos + 6 : packet.pos + packet.size] = bytes(packet.size - 6)
    path.write_bytes(spoilt)
    plain, found, _ = both_ways(path, SamplingRules(max_gap_s=1.0, audit=0), pool)
    assert found == plain
    assert [one for one in found if isinstance(one, str)]


def test_keyframes_are_decoded_ahead_unless_something_live_goes_first(clips: Clips, pool: Pool) -> None:
    """All but those of the last GOP, which is read."""
    path = clips(pictures=241, gop=24)
    _, found, _ = both_ways(path, SamplingRules(max_gap_s=1.0, audit=0), pool)
    assert pool.started == len(found) - 1 == 10
    for _ in range(CORES + 1):
        pool.release()
    pool.paused, pool.started = True, 0
    both_ways(path, SamplingRules(max_gap_s=1.0, audit=0), pool)
    assert pool.started == 0


LONG = {
    "H.264": {"options": {"bf": "3"}},
    "H.264 in MPEG-TS": {"suffix": ".ts", "options": {"bf": "2"}},
    "HEVC": {"codec": "libx265"},
    "VP9": {"codec": "libvpx-vp9", "suffix": ".webm"},
}
"""Eight sequences of 45 pictures and one of 1, further apart than the gap."""


def long_film(clips: Clips, name: str = "H.264") -> Path:
    return clips(pictures=361, gop=45, **LONG[name])  # type: ignore[arg-type]


def test_where_nothing_may_be_decoded_ahead_no_sequence_is_read_ahead(clips: Clips) -> None:
    """It would be held, and rehearsed, for nothing."""

    def never() -> Iterator[Sequence]:
        raise AssertionError("it was read ahead")
        yield

    with opened(long_film(clips)) as source:
        admission = Admission("cpu", Turns(CORES, Marks(board(CORES))), 1)
        sampler = Sampler(SamplingRules(plan="full"), kind="file", rng=random.Random(1))
        sequences.Sequences(source.info, admission, Ahead(CORES, 0)).foresee(sampler, never())


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("plan", ["auto", "skip", "full"])
def test_sequences_are_decoded_ahead_where_all_packets_are_fed(
    clips: Clips, pool: Pool, monkeypatch: pytest.MonkeyPatch, name: str, plan: Plan
) -> None:
    """All but the first, in which that turns out, and the last; and nothing that is kept was not foreseen."""
    late = count_late(monkeypatch)
    rules = SamplingRules(max_gap_s=0.7, plan=plan)
    plain, found, _ = both_ways(long_film(clips, name), rules, pool)
    assert found == plain
    assert pool.started >= 7
    assert late == []


def count_late(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times of pictures that were not foreseen, as they are decoded."""
    late: list[float] = []
    decode = sequences.Replay._decode_up_to

    def noted(replay: sequences.Replay, time_s: float) -> Picture | None:
        late.append(time_s)
        return decode(replay, time_s)

    monkeypatch.setattr(sequences.Replay, "_decode_up_to", noted)
    return late


@pytest.mark.parametrize("at_s", [3.0, 5.9, 8.2])
def test_what_is_watched_within_a_sequence_that_was_decoded_ahead_is_decoded_after_all(
    clips: Clips, pool: Pool, monkeypatch: pytest.MonkeyPatch, at_s: float
) -> None:
    late = count_late(monkeypatch)
    rules = SamplingRules(max_gap_s=0.7, plan="skip")
    plain, found, _ = both_ways(long_film(clips), rules, pool, watch=(at_s, at_s + 2.0))
    assert found == plain
    dense = [one for one in found if isinstance(one, tuple) and at_s <= one[0] < at_s + 2.0]
    assert len(dense) >= 10  # eight a second, once it is watched
    assert late


def test_a_sequence_is_collected_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a film of two keyframes may be hours long."""
    monkeypatch.setattr(sequences, "MOST_BYTES", 5000)

    def film() -> Iterator[tuple[Packet, bool]]:
        for n in range(300):
            data = Packed()
            alive.add(data)
            yield Packet(n / 10, keyframe=n in (0, 3, 299), size=100, arrived=0, pts=n, data=data), n == 299

    class Packed:
        """What a packet holds."""

    alive: WeakSet[Packed] = WeakSet()
    packets, most, whole = sequences.Upcoming(film()), 0, list[int]()
    for packet, _ in packets:
        if packet.pts in (0, 3):
            whole.append(len(list(packets.sequences())))
        most = max(most, len(alive))
    assert whole == [1, 0]
    assert most < 70


def test_damage_in_a_sequence_is_told_and_survived_in_the_same_way(
    clips: Clips, tmp_path: Path, pool: Pool
) -> None:
    whole = long_film(clips)
    path = tmp_path / "damaged.mp4"
    spoilt = bytearray(whole.read_bytes())
    packets = [packet.data for packet in demux(whole)[1]]
    for packet in packets[90:91] + packets[140:150] + packets[225:226]:  # the first and the last: keyframes
        spoilt[packet.pos + 6 : packet.pos + packet.size] = bytes(packet.size - 6)
    path.write_bytes(spoilt)
    plain, found, _ = both_ways(path, SamplingRules(max_gap_s=0.7, plan="skip"), pool)
    assert found == plain
    assert [one for one in found if isinstance(one, str)]
    assert pool.started >= 7


def test_as_many_are_decoded_at_once_as_there_are_cores(pool: Pool) -> None:
    both = threading.Barrier(CORES)

    def work() -> None:
        both.wait(30)

    begun = [pool.start(work) for _ in range(CORES)]
    assert [one.result(30) for one in begun] == [None] * CORES


def test_of_keyframes_to_spare_only_those_that_are_wanted_are_read(clips: Clips, pool: Pool) -> None:
    path = clips(pictures=241, gop=1)
    _, found, read = both_ways(path, SamplingRules(max_gap_s=2.0, audit=0), pool)
    assert read < 60 < 241
    assert len(found) < read


def test_a_film_is_taken_up_behind_its_last_sample(clips: Clips, pool: Pool) -> None:
    path = clips(pictures=241, gop=12)
    admission = Admission("cpu", Turns(CORES, Marks(board(CORES))), 1)
    sampler = Sampler(SamplingRules(max_gap_s=1.0), kind="file", rng=random.Random(1))
    with (
        opened(path) as source,
        admission.decoder(source.info) as decoder,
        by_index(source, sampler, decoder, admission, pool) as skim,
    ):
        assert skim is not None
        times = [packet.time_s for packet, _ in skim.packets(6.2)]
    assert times[0] == pytest.approx(6.0)
    assert times[-1] == pytest.approx(10.0)


def test_an_index_that_cannot_be_relied_on_is_not_used(clips: Clips, tmp_path: Path) -> None:
    whole = clips(pictures=241, gop=12)
    cut = tmp_path / "cut.mp4"
    front = write_clip(
        tmp_path / "front.mp4",
        moving_pictures(48),
        rate=24,
        gop=12,
        container_options={"movflags": "faststart"},
    ).read_bytes()
    cut.write_bytes(front[: len(front) * 2 // 3])
    with opened(whole) as source:
        assert np.allclose(source.keyframes(), np.arange(21) / 2)
    other_order = clips(pictures=96, options={"x264-params": "open-gop=1:bframes=3"})
    for path in (cut, other_order):
        with opened(path) as source:
            assert source.keyframes() == ()
            assert next(iter(source)).time_s == 0.0

"""The sampler, driven through ``pictures`` with scripted packets and a decoder that only reorders."""

import contextlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, DecodeError, NoTurn, SourceCorrupt
from pipeline.flow.decode import Picture
from pipeline.flow.pick import pictures
from pipeline.flow.sample import TOLERANCE, Sampler, SamplingRules
from pipeline.flow.sample_ahead import with_last
from pipeline.flow.source import Kind, Packet


class Reorderer:
    """Gives a fed picture when ``delay`` later ones are in, in presentation order, like libavcodec does.

    Packets whose number is in ``broken`` raise, and what follows is lost up to the next keyframe. With
    ``alone`` False a keyframe by itself gives nothing. On pictures of odd number no other depends: of those
    that are not wanted nothing comes."""

    def __init__(self, delay: int = 0, broken: Iterable[int] = (), alone: bool = True) -> None:
        self.damaged = self.stills = self.feeds = self.left_out = 0
        self.delay, self.broken, self.alone = delay, set(broken), alone
        self.buffer: list[Packet] = []
        self.start: Packet | None = None

    def still(self, packet: Packet) -> Picture | None:
        self.stills += 1
        self._refuse(packet)
        return _picture(packet) if self.alone else None

    def decode(self, packet: Packet, *, wanted: bool = True) -> Iterator[Picture]:
        self.feeds += 1
        if packet.keyframe and self.start is None:
            self.start = packet
        if self.start is None or packet.time_s < self.start.time_s:
            return
        try:
            self._refuse(packet)
        except DecodeError:
            yield from self.flush()
            raise
        if not wanted and packet.pts % 2 and not packet.keyframe:
            self.left_out += 1
            return
        self.buffer = sorted([*self.buffer, packet], key=lambda each: each.time_s)
        while len(self.buffer) > self.delay:
            yield _picture(self.buffer.pop(0))

    def flush(self) -> Iterator[Picture]:
        buffer = self.buffer
        self.reset()
        yield from (_picture(packet) for packet in buffer)

    def reset(self) -> None:
        self.buffer, self.start = [], None

    def close(self) -> None:
        self.reset()

    def _refuse(self, packet: Packet) -> None:
        if packet.pts in self.broken:
            self.damaged += 1
            raise DecodeError(f"packet {packet.pts}")


class Run:
    """Everything that came of carrying packets through a sampler."""

    def __init__(self, packets: list[Packet], sampler: Sampler, decoder: Reorderer) -> None:
        self.sampler, self.decoder, self.errors = sampler, decoder, 0
        self.times: list[float] = []
        self.plans: list[str] = []
        self.held = 0
        for number, packet in enumerate(packets):
            last = sampler.kind == "file" and number == len(packets) - 1
            try:
                for picture in pictures(packet, sampler, decoder, last=last):
                    self.times.append(picture.time_s)
            except DecodeError:
                self.errors += 1
            self.plans.append(sampler.plan)
            self.held = max(self.held, sampler.held_bytes)

    def worst_gap(self) -> float:
        return max((b - a for a, b in pairwise(self.times)), default=0.0)


def _picture(packet: Packet) -> Picture:
    return Picture(packet.time_s, 16, 16, packet.arrived)


def film(gops: Iterable[int], fps: float, *, b_frames: int = 0, open_gop: bool = False) -> list[Packet]:
    """GOPs of so many pictures in decode order; with ``b_frames`` each P precedes the Bs shown before it."""
    packets: list[Packet] = []
    start = 0
    for number, size in enumerate(gops):
        shown = [start]
        leading = b_frames if open_gop and number else 0
        shown += [start - 1 - each for each in reversed(range(leading))]
        for first in range(start + 1, start + size - (b_frames if open_gop else 0), b_frames + 1):
            group = list(
                range(first, min(first + b_frames + 1, start + size - (b_frames if open_gop else 0)))
            )
            shown += [group[-1], *group[:-1]]
        packets += [
            Packet(at / fps, at == start, 4000 if at == start else 400, at / fps, len(packets) + each)
            for each, at in enumerate(shown)
        ]
        start += size
    return packets


def sampler(kind: Kind = "live", seed: int = 1, **rules: object) -> Sampler:
    rules = {"audit": 0.0, **rules}
    return Sampler(SamplingRules(**rules), kind=kind, rng=random.Random(seed))  # type: ignore[arg-type]


def test_a_stream_whose_keyframes_keep_the_gap_is_decoded_by_keyframes_alone() -> None:
    run = Run(film([60] * 10, 30), sampler(), Reorderer())
    assert run.times == pytest.approx([2.0 * number for number in range(10)])
    assert (run.decoder.stills, run.decoder.feeds, set(run.plans)) == (10, 0, {"keyframes"})


def test_skip_leaves_out_what_is_not_due_and_full_does_not() -> None:
    """A GOP of 20 s: nearly every second picture need not be decoded."""
    long = film([600] * 3, 30)
    skip = Run(long, sampler(plan="skip"), Reorderer(delay=2))
    assert skip.worst_gap() <= 2.0 * TOLERANCE
    assert skip.decoder.left_out > 0.4 * len(long)
    assert set(skip.plans) == {"skip"}
    assert Run(long, sampler(plan="full"), Reorderer()).decoder.left_out == 0
    assert Run(long, sampler(), Reorderer()).decoder.left_out > 0.3 * len(long)


def test_a_stream_that_is_watched_is_sampled_densely_and_then_no_longer() -> None:
    """8 pictures a second from 10 s to 16 s, in a stream of keyframes every 2 s."""
    packets = film([60] * 20, 30)
    watching = sampler(burst_fps=8.0)
    before = Run(packets[:300], watching, Reorderer())
    watching.watch(16.0)
    after = Run(packets[300:], watching, Reorderer())
    dense = [time_s for time_s in after.times if 10.5 <= time_s <= 15.9]
    assert max(b - a for a, b in pairwise(dense)) <= 1 / 8 + 1 / 30 + 1e-6
    assert before.plans[-1] == "keyframes"
    assert "skip" in after.plans
    assert after.plans[-1] == "keyframes"
    assert after.worst_gap() <= 2.0 * TOLERANCE


def test_a_gop_of_60_at_29_97_counts_as_two_seconds() -> None:
    run = Run(film([60] * 10, 30000 / 1001), sampler(), Reorderer())
    assert run.decoder.feeds == 0
    assert len(run.times) == 10


def test_keyframes_that_the_gap_does_not_need_are_passed_over() -> None:
    """Keyframes every 0.5 s, due U(1.2, 2.0) s after each sample: the nearest lies 0.95 s after at least."""
    run = Run(film([15] * 80, 30), sampler(), Reorderer())
    assert run.worst_gap() <= 2.0 * TOLERANCE
    assert (
        run.decoder.stills == len(run.times) <= 40 / 1.0 + 3
    )  # the first keyframes are taken to learn the GOP
    assert run.decoder.feeds == 0


def test_two_samplers_with_different_seeds_take_different_keyframes() -> None:
    packets = film([15] * 80, 30)
    first, second = (Run(packets, sampler(seed=seed), Reorderer()).times for seed in (1, 2))
    assert first != second


def test_a_gop_longer_than_the_gap_goes_over_to_full_within_the_gap() -> None:
    run = Run(film([600, 600], 30, b_frames=2), sampler(), Reorderer(delay=2))
    assert run.worst_gap() <= 2.0 * TOLERANCE
    assert run.plans[-1] == "skip"
    assert "less often than every 2 s" in run.sampler.why
    assert run.sampler.gop_s == pytest.approx(20.0)


@pytest.mark.parametrize("until_s", [41.5, 42.5, 43.5])
def test_a_stretched_gap_is_kept_by_keyframes_alone_also_when_it_shrinks_again(until_s: float) -> None:
    """From one keyframe in two back to each of them: nothing in between is decoded for that."""
    for seed in range(10):
        one, decoder, times = sampler(seed=seed), Reorderer(), []
        for packet in film([20] * 40, 10):
            at = packet.time_s
            one.stretch(4.1 if 20 <= at < until_s else 3.7 if until_s <= at < 60 else 2.0)
            times += [picture.time_s for picture in pictures(packet, one, decoder)]
        assert (one.plan, decoder.feeds) == ("keyframes", 0)
        assert len([at for at in times if 20 <= at < 41]) < 11
        assert [at for at in times if at >= 62] == [62.0 + 2 * n for n in range(9)]


@pytest.mark.parametrize("gap_s", [2.1, 2.5, 3.0, 3.7, 5.0, 9.0])
def test_a_stretched_gap_is_kept_on_average_and_never_stretched_beyond_its_floor(gap_s: float) -> None:
    """Over GOPs of 2 s: what is given up saves as much, at once."""
    one, decoder, times = sampler(), Reorderer(), []
    for packet in film([20] * 400, 10):
        one.stretch(gap_s)
        times += [picture.time_s for picture in pictures(packet, one, decoder)]
    gaps = [later - earlier for earlier, later in pairwise(times[5:])]
    assert sum(gaps) / len(gaps) == pytest.approx(gap_s, rel=0.05)
    assert max(gaps) <= one.rules.most_gap_s * TOLERANCE
    assert decoder.feeds == 0


class Busy(Reorderer):
    """Has no turn for a keyframe from 60 to 80 s."""

    def still(self, packet: Packet) -> Picture | None:
        if 60 <= packet.time_s < 80:
            raise NoTurn("no turn to decode it in time")
        return super().still(packet)


def test_what_was_missed_in_an_overload_is_not_made_up_for_by_more_samples() -> None:
    for seed in range(10):
        one, decoder, times = sampler(seed=seed), Busy(), list[float]()
        for packet in film([20] * 60, 10):
            one.stretch(6.0)
            with contextlib.suppress(NoTurn):
                times += [picture.time_s for picture in pictures(packet, one, decoder)]
        after = [at for at in times if at >= 60]
        assert after[0] == 80.0
        assert min(later - earlier for earlier, later in pairwise(after)) >= 4.0


def test_three_good_gops_in_a_row_lead_back_to_the_keyframes() -> None:
    """Long: 0 to 20 s. Good GOPs end at 22, 24 and 26 s: from the keyframe at 26 s on nothing is fed."""
    packets = film([600] + [60] * 8, 30)
    run = Run(packets, sampler(), Reorderer())
    back = next(number for number, packet in enumerate(packets) if packet.time_s >= 26)
    assert run.plans[back - 1] == "skip"
    assert set(run.plans[back:]) == {"keyframes"}
    assert "keeps the gap" in run.sampler.why
    assert run.worst_gap() <= 2.0 * TOLERANCE


def test_the_explicit_plan_keyframes_never_feeds() -> None:
    run = Run(film([600, 600, 600], 30), sampler(plan="keyframes"), Reorderer())
    assert run.times == pytest.approx([0.0, 20.0, 40.0])
    assert (run.decoder.feeds, run.held) == (0, 0)


def test_the_full_plan_keeps_the_gap_at_one_picture_a_second() -> None:
    kinds: tuple[Kind, ...] = ("live", "file")
    for kind in kinds:
        run = Run(film([60], 1), sampler(kind, plan="full"), Reorderer())
        assert run.worst_gap() <= 2.0 * TOLERANCE
        assert run.decoder.stills == 0


def test_at_two_pictures_in_five_seconds_every_picture_is_kept() -> None:
    run = Run(film([20, 20], 0.4), sampler(), Reorderer())
    assert run.times == pytest.approx([2.5 * number for number in range(40)])


def test_the_full_plan_draws_its_sample_times() -> None:
    """Due U(1.2, 2.0) s after each sample: 100 s give between 50 and 84 samples, not at one distance."""
    run = Run(film([300] * 10, 30), sampler(plan="full"), Reorderer())
    gaps = {round(b - a, 2) for a, b in pairwise(run.times)}
    assert 50 <= len(run.times) <= 85
    assert len(gaps) > 10


@pytest.mark.parametrize("plan", ["auto", "keyframes", "full", "skip"])
@pytest.mark.parametrize("delay", [0, 2])
def test_a_files_first_and_last_pictures_are_screened(plan: str, delay: int) -> None:
    packets = film([60, 60, 47], 30, b_frames=delay)
    run = Run(packets, sampler("file", plan=plan), Reorderer(delay))
    assert run.times[0] == 0.0
    assert run.times[-1] == pytest.approx(166 / 30)


def test_a_file_that_ends_with_a_keyframe_does_not_feed_for_it() -> None:
    run = Run(film([30, 30, 1], 30), sampler("file"), Reorderer())
    assert run.times[-1] == pytest.approx(2.0)
    assert run.decoder.feeds == 0


def test_of_a_damaged_end_the_last_sound_picture_is_screened() -> None:
    """Packet 100 of 0..119 is broken: 99 at 3.3 s is the last picture that there is."""
    run = Run(film([60, 60], 30), sampler("file"), Reorderer(broken=[100]))
    assert run.times[-1] == pytest.approx(3.3)
    assert run.errors == 1


def test_a_file_that_breaks_off_is_ended_with_its_last_packet() -> None:
    def breaking() -> Iterator[Packet]:
        yield from film([60, 20], 30)
        raise SourceCorrupt("cut")

    chosen, decoder = sampler("file"), Reorderer()
    times: list[float] = []

    def screen() -> None:
        for packet, last in with_last(breaking()):
            times.extend(picture.time_s for picture in pictures(packet, chosen, decoder, last=last))

    with pytest.raises(SourceCorrupt):
        screen()
    assert times[-1] == pytest.approx(79 / 30)


def test_a_file_can_be_ended_without_another_packet() -> None:
    chosen, decoder = sampler("file"), Reorderer(delay=1)
    for packet in film([60, 20], 30):
        list(pictures(packet, chosen, decoder))
    assert [picture.time_s for picture in pictures(None, chosen, decoder, last=True)] == [
        pytest.approx(79 / 30)
    ]


def test_packets_before_the_first_keyframe_are_ignored() -> None:
    packets = film([60, 60], 30)[10:]
    run = Run(packets, sampler(), Reorderer())
    assert run.times == pytest.approx([2.0])


def test_a_damaged_keyframe_is_replaced_by_the_one_passed_over() -> None:
    """Keyframes every second at a gap of 2.5 s: one that is taken is broken, the one before it stands in."""
    packets = film([30] * 12, 30)
    sound = Run(packets, sampler(max_gap_s=2.5), Reorderer())
    skipped = [p for p in packets if p.keyframe and p.time_s not in sound.times and p.time_s > 3]
    taken = next(
        p for p in packets if p.keyframe and p.time_s > skipped[0].time_s and p.time_s in sound.times
    )
    run = Run(packets, sampler(max_gap_s=2.5), Reorderer(broken=[taken.pts]))
    assert run.errors == 1
    assert run.times[run.times.index(sound.times[sound.times.index(taken.time_s) - 1]) + 1] < taken.time_s
    assert run.worst_gap() <= 2.5 * TOLERANCE


def test_the_keyframe_passed_over_is_decoded_at_once_and_only_tried_once() -> None:
    packets = film([30] * 12, 30)
    sound = Run(packets, sampler(max_gap_s=2.5), Reorderer())
    keyframes = [packet for packet in packets if packet.keyframe and packet.time_s > 3]
    spare, taken = next(
        (a, b) for a, b in pairwise(keyframes) if a.time_s not in sound.times and b.time_s in sound.times
    )
    chosen, decoder = sampler(max_gap_s=2.5), Reorderer(broken=[taken.pts])
    for packet in packets[: packets.index(taken)]:
        list(pictures(packet, chosen, decoder))
    times: list[float] = []
    with pytest.raises(DecodeError):
        times.extend(picture.time_s for picture in pictures(taken, chosen, decoder))
    assert chosen.is_new(taken.time_s)
    assert not chosen.is_new(spare.time_s)
    assert Run(packets, sampler(max_gap_s=2.5), Reorderer(broken=[taken.pts, spare.pts])).errors <= 2


def test_after_a_damaged_keyframe_the_next_one_is_taken() -> None:
    run = Run(film([60] * 4, 30), sampler(), Reorderer(broken=[60]))
    assert run.times == pytest.approx([0.0, 4.0, 6.0])
    assert run.errors == 1


def test_keyframes_that_do_not_decode_alone_lead_to_full_for_good() -> None:
    run = Run(film([60] * 40, 30), sampler(), Reorderer(alone=False))
    assert run.sampler.plan == "skip"
    assert "do not decode by themselves" in run.sampler.why
    assert run.decoder.stills == 1
    assert run.times[0] == 0.0
    assert run.worst_gap() <= 2.0 * TOLERANCE


def test_an_audit_keeps_a_picture_between_keyframes() -> None:
    packets = film([60] * 30, 30, b_frames=2)
    run = Run(packets, sampler(audit=1.0), Reorderer(delay=2))
    keyframes = {packet.time_s for packet in packets if packet.keyframe}
    assert sum(time not in keyframes for time in run.times) >= 10
    assert run.sampler.plan == "keyframes"
    assert run.times == sorted(set(run.times))


@pytest.mark.parametrize("kind", ["live", "file"])
def test_an_audit_holds_a_decoder_for_no_longer_than_its_picture_takes(kind: Kind) -> None:
    """What it depends on is fed when it has come, and a few packets later the decoder is free again."""
    decoder, audited, decoding = Reorderer(delay=2), sampler(kind, audit=1.0), Counter[int]()
    for number, packet in enumerate(film([60] * 30, 30, b_frames=2)):
        list(pictures(packet, audited, decoder))
        decoding[number // 60] += decoder.start is not None
    assert decoder.feeds > 10 * 30, "half a sequence each, on average"
    assert max(decoding.values()) <= 6, "that picture comes with two more, and then two behind it"


def test_an_audit_for_which_there_is_no_time_is_left_out_and_counted() -> None:
    run_sampler = sampler(audit=1.0)
    run_sampler.audits = False
    run = Run(film([60] * 5, 30), run_sampler, Reorderer(delay=2))
    assert run.decoder.feeds == 0
    assert run_sampler.audits_refused == 4  # the first distance between keyframes is not known at its start


def test_the_default_audit_decodes_about_that_share_of_gops() -> None:
    """2 % of 1000 keyframes are 20 GOPs of 60, each fed to the middle on average: about 600 packets. The half
    on which no other depends is left out on the way."""
    run = Run(film([60] * 1000, 30), sampler(audit=0.02), Reorderer())
    assert 100 < run.decoder.feeds < 1800
    assert run.decoder.left_out > 0.4 * run.decoder.feeds


def test_a_gop_too_large_to_hold_is_fed() -> None:
    heavy = [
        Packet(p.time_s, p.keyframe, 2**20, p.arrived, p.pts) for p in film([60] * 3, 30)
    ]  # 60 MiB a GOP
    run = Run(heavy, sampler(), Reorderer())
    assert run.held <= 32 * 2**20
    assert run.worst_gap() <= 2.0 * TOLERANCE
    last = Run(heavy, sampler("file", plan="keyframes"), Reorderer())
    assert last.held <= 32 * 2**20
    assert last.times[-1] == pytest.approx(179 / 30)


def test_a_hole_in_the_stream_is_bracketed_by_samples_on_both_sides() -> None:
    """Nothing between 1.9 s and 9 s: the last picture before the hole and the first after it are kept."""
    before = [p for p in film([60], 30) if p.time_s <= 1.9]
    after = [Packet(p.time_s + 9, p.keyframe, p.size, p.arrived, p.pts + 100) for p in film([60], 30)]
    run = Run(before + after, sampler(), Reorderer())
    assert run.times[1] == pytest.approx(57 / 30)
    assert run.times[2] == pytest.approx(9.0)


@pytest.mark.parametrize(
    "wrong",
    [{"max_gap_s": 0}, {"max_gap_s": float("nan")}, {"plan": "fast"}, {"audit": 1.5}, {"burst_fps": 0}],
)
def test_a_rule_out_of_range_names_its_key_and_value(wrong: dict[str, object]) -> None:
    (key, value), *_ = wrong.items()
    with pytest.raises(ConfigError, match=f"sampling.{key}: {value!r}: must be "):
        SamplingRules(**wrong)  # type: ignore[arg-type]


films = st.builds(
    lambda gops, fps, b, opened: (film(gops, fps, b_frames=b, open_gop=opened and b > 0), b),
    st.lists(st.integers(4, 150), min_size=1, max_size=12),
    st.sampled_from([0.4, 0.7, 1.0, 3.0, 5.0, 12.5, 30000 / 1001]),
    st.integers(0, 3),
    st.booleans(),
)


@settings(max_examples=120, deadline=None)
@given(films, st.sampled_from([0.7, 2.0, 5.0]), st.sampled_from(["live", "file"]), st.integers(0, 5))
@example((film([4, 4], 0.4, b_frames=3, open_gop=True), 3), 0.7, "live", 0)
@example((film([4], 1.0, b_frames=2), 2), 2.0, "file", 0)
def test_auto_keeps_every_gap_that_can_be_kept(
    made: tuple[list[Packet], int], max_gap_s: float, kind: Kind, seed: int
) -> None:
    packets, delay = made
    run = Run(packets, sampler(kind, seed, max_gap_s=max_gap_s, audit=0.2), Reorderer(delay))
    end = max(packet.time_s for packet in packets) if kind == "file" else run.times[-1]
    _assert_kept(run, packets, max_gap_s, end)
    assert run.times[0] == 0.0
    assert kind == "live" or run.times[-1] == end


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.sampled_from([0.02, 0.04, 0.2, 0.7, 1.6]), min_size=2, max_size=120),
    st.lists(st.booleans(), min_size=120, max_size=120),
    st.sampled_from(["auto", "full"]),
)
@example([1.6, 1.6, 1.6, 0.04, 0.7, 0.7], [True, False, True, True, True, True], "auto")
def test_a_file_of_irregular_pictures_keeps_the_gap(
    steps: list[float], keyframes: list[bool], plan: str
) -> None:
    time_s, packets = 0.0, []
    for number, (step, keyframe) in enumerate(zip(steps, keyframes, strict=False)):
        packets.append(Packet(time_s, keyframe or number == 0, 500, time_s, number))
        time_s += step
    run = Run(packets, sampler("file", plan=plan), Reorderer())
    _assert_kept(run, packets, 2.0, packets[-1].time_s)


def _assert_kept(run: Run, packets: list[Packet], max_gap_s: float, end_s: float) -> None:
    """Samples rise, and a gap beyond the limit has no picture in it."""
    assert all(a < b for a, b in pairwise(run.times))
    for a, b in pairwise([*run.times, end_s]):
        assert b - a <= max_gap_s * TOLERANCE or not any(a < packet.time_s < b for packet in packets)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(5, 60), min_size=1, max_size=60), st.integers(0, 9))
def test_keyframes_cost_at_most_one_still_each_and_no_more_than_the_gap_needs(
    gops: list[int], seed: int
) -> None:
    """With GOPs of 0.5 s the keyframe nearest to the due time, 1.2 s after a sample at the earliest, lies at
    least 0.95 s after it; the first four show the GOP."""
    run = Run(film(gops, 30), sampler(seed=seed), Reorderer())
    assert run.decoder.stills <= len(gops)
    even = Run(film([15] * 4 * len(gops), 30), sampler(seed=seed), Reorderer())
    assert even.decoder.stills <= 2 * len(gops) / 0.95 + 4
    assert even.decoder.feeds == 0


def _without_what_rests(packets: list[Packet], one: Sampler, decoder: Reorderer) -> tuple[list[float], int]:
    """Samples of a file whose packets are left out where the sampler rests, and how many were not."""
    starts = [number for number, packet in enumerate(packets) if packet.keyframe]
    following = dict(pairwise(starts))
    times: list[float] = []
    taken = number = 0
    while number < len(packets):
        with contextlib.suppress(DecodeError):
            last = number == len(packets) - 1
            for picture in pictures(packets[number], one, decoder, last=last):
                times.append(picture.time_s)
        taken += 1
        jump = following.get(number)
        number = jump if jump is not None and one.rests(packets[jump].time_s) else number + 1
    return times, taken


@settings(max_examples=200, deadline=None)
@given(
    films,
    st.sampled_from([0.7, 2.0, 5.0]),
    st.integers(0, 5),
    st.sampled_from(["auto", "keyframes", "skip"]),
    st.sets(st.integers(0, 400)),
)
def test_leaving_out_what_a_file_s_sampler_says_it_does_not_need_changes_no_sample(
    made: tuple[list[Packet], int], max_gap_s: float, seed: int, plan: str, broken: set[int]
) -> None:
    packets, delay = made
    rules: dict[str, object] = {"max_gap_s": max_gap_s, "audit": 0.2, "plan": plan}
    whole = Run(packets, sampler("file", seed, **rules), Reorderer(delay, broken))
    times, taken = _without_what_rests(packets, sampler("file", seed, **rules), Reorderer(delay, broken))
    assert times == whole.times
    assert taken <= len(packets)


def test_of_a_film_at_one_keyframe_a_gap_only_the_keyframes_and_the_last_gop_are_needed() -> None:
    packets = film([60] * 10, 30)
    _, taken = _without_what_rests(packets, sampler("file"), Reorderer())
    assert taken == 9 + 60


def test_a_forecast_names_the_keyframes_that_will_be_decoded_and_changes_nothing() -> None:
    packets = film([15] * 80, 30)
    keyframes = [packet for packet in packets if packet.keyframe]
    one = sampler(seed=3)
    foreseen = [packet.time_s for packet in one.forecast(keyframes)]
    assert list(one.forecast(keyframes)) == list(one.forecast(keyframes))
    assert Run(packets, one, Reorderer()).times == foreseen
    assert Run(packets, sampler(seed=3), Reorderer()).times == foreseen

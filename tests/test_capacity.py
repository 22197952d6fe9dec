"""The arithmetic of ``plan``: worked examples, and properties that hold for any streams and servers."""

import random
from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.capacity import demand
from pipeline.capacity.cards import CARDS, Card
from pipeline.capacity.demand import Choice, Rates, Seen, choose, interval_s, rates
from pipeline.capacity.figures import BASES, Figure, weakest
from pipeline.capacity.fit import Fit, fit
from pipeline.capacity.money import Prices, bill, core_a_stream
from pipeline.capacity.supply import Amount, Resource, Server
from pipeline.flow.sample import Sampler
from pipeline.flow.sample_rules import TOLERANCE, SamplingRules
from pipeline.flow.source import Packet

CAMERA = Seen(
    codec="h264", width=1920, height=1080, fps=30.0, gop_s=2.0, watched_s=8.0, keyframe_bytes=200_000.0,
    bits=3e6, remote=True,
)  # fmt: skip
T4 = CARDS["t4"]


def played(rules: SamplingRules, *, gop: int, fps: float, seconds: float) -> tuple[Sampler, Rates]:
    """The real sampler on a stream with a keyframe every ``gop`` pictures: what it came to, and did."""
    sampler = Sampler(rules, kind="live", rng=random.Random(5))
    stills = fed = samples = 0
    count = int(seconds * fps)
    for number in range(count):
        packet = Packet(number / fps, number % gop == 0, 1000, 0.0, number)
        for order in sampler.take(packet):
            if order.packet is None:
                continue
            if order.kind == "still":
                sampler.kept(order.packet.time_s)
                stills, samples = stills + 1, samples + 1
            elif order.kind == "feed":
                fed += 1
                samples += order.wanted and sampler.wants(order.packet.time_s)
    span_s = count / fps
    return sampler, Rates(stills / span_s, fed / span_s, samples / span_s)


# ---- the sampling plan ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    gop_s=st.sampled_from([0.2, 0.4, 0.5, 1.0, 1.4, 2.0, 2.5, 4.0, 8.0]),
    max_gap_s=st.sampled_from([0.5, 1.0, 2.0, 3.0, 5.0]),
    fps=st.sampled_from([10.0, 25.0, 30.0]),
)
def test_the_plan_foretold_is_the_one_that_the_sampler_comes_to(
    gop_s: float, max_gap_s: float, fps: float
) -> None:
    rules = SamplingRules(max_gap_s=max_gap_s, audit=0.0)
    gop = round(gop_s * fps)
    sampler, _ = played(rules, gop=gop, fps=fps, seconds=30.0)
    assert choose(rules, gop / fps, 30.0).plan == sampler.plan


@settings(deadline=None, max_examples=24)
@given(
    gop_s=st.sampled_from([0.2, 0.5, 1.0, 1.4, 2.0, 4.0, 8.0]),
    max_gap_s=st.sampled_from([1.0, 2.0, 5.0]),
    audit=st.sampled_from([0.0, 0.1]),
)
def test_the_pictures_foretold_are_those_that_the_sampler_asks_for(
    gop_s: float, max_gap_s: float, audit: float
) -> None:
    rules = SamplingRules(max_gap_s=max_gap_s, audit=audit)
    seen = replace(CAMERA, fps=10.0, gop_s=gop_s)
    told = rates(rules, choose(rules, gop_s, 60.0), seen)
    _, done = played(rules, gop=round(gop_s * 10), fps=10.0, seconds=3000.0)  # audits come by chance
    assert told.stills == pytest.approx(done.stills, rel=0.1, abs=0.01)
    assert told.fed == pytest.approx(done.fed, rel=0.1, abs=0.3 if audit else 0.02)
    assert told.samples == pytest.approx(done.samples, rel=0.15)


@pytest.mark.parametrize("plan", ["keyframes", "skip", "full"])
def test_a_plan_that_the_config_sets_is_that_plan(plan: demand.Planned) -> None:
    assert choose(SamplingRules(plan=plan), 60.0, 60.0) == Choice(plan, "set in the config")


def test_a_stream_watched_for_longer_than_the_gap_without_a_second_keyframe_is_fed() -> None:
    assert choose(SamplingRules(), None, 2.2).plan == "skip"


def test_a_stream_that_was_hardly_seen_is_not_sure_of_its_plan() -> None:
    assert not choose(SamplingRules(), None, 1.0).sure
    assert choose(SamplingRules(), 1.0, 3.0).sure


@given(st.floats(0.05, 10.0), st.floats(0.2, 10.0))
def test_the_mean_interval_keeps_the_gap_wherever_the_keyframes_do(gop_s: float, max_gap_s: float) -> None:
    found = interval_s(SamplingRules(max_gap_s=max_gap_s), gop_s)
    assert found == gop_s or gop_s <= found <= max_gap_s * TOLERANCE + 1e-6


# ---- cards ------------------------------------------------------------------------------------------------


def full_decode(card: Card, seen: Seen) -> Fit:
    """NVDEC alone, every picture decoded, three quarters of it planned with."""
    rate = card.decode_rate(seen.codec)
    assert rate is not None
    server = Server("", {"nvdec": Amount(Figure(1.0, "card", rate.basis, ""))})
    need = rates(SamplingRules(plan="full"), Choice("full", ""), seen)
    return fit(server, [{"nvdec": demand.nvdec_share(need, seen, rate.value)}], 0.75)


def test_a_t4_decodes_thirty_full_hd_streams_of_h264_in_full_and_fifty_of_hevc() -> None:
    """2 engines x 771 pictures/s x 1470/1860 MHz = 1,219; three quarters of it are 30.5 streams of 30."""
    rate = T4.decode_rate("h264")
    assert rate is not None
    assert round(rate.value) == 1219
    assert rate.basis == "derived"
    assert full_decode(T4, CAMERA).carries == 30
    assert full_decode(T4, replace(CAMERA, codec="hevc")).carries == 52


def test_keyframes_alone_need_a_sixtieth_of_what_all_pictures_do() -> None:
    rules = SamplingRules(audit=0.0)
    few = rates(rules, choose(rules, 2.0, 8.0), CAMERA)
    assert few == Rates(0.5, 0.0, 0.5)
    assert CAMERA.fps / few.decoded == 60


@pytest.mark.parametrize(("name", "can"), [("t4", False), ("h100", False), ("a10", True), ("l4", True)])
def test_av1_is_decoded_from_ampere_on_but_not_by_an_h100(name: str, can: bool) -> None:
    card = next(card for card in CARDS.values() if card.name == name)
    assert (card.decode_rate("av1") is not None) == can


def test_a_codec_without_a_figure_is_assumed_and_an_unknown_clock_is_called_an_upper_bound() -> None:
    vp8, ada = T4.decode_rate("vp8"), CARDS["l4"].decode_rate("h264")
    assert vp8 is not None
    assert ada is not None
    assert vp8.basis == "assumed"
    assert "upper bound" in ada.source
    halved = CARDS["l4"].decode_rate("h264", 1080)
    assert halved is not None
    assert halved.value == ada.value / 2
    assert "upper bound" not in halved.source


@given(st.lists(st.sampled_from(BASES), min_size=1))
def test_a_number_is_no_firmer_than_the_weakest_that_it_is_made_of(bases: list[str]) -> None:
    known = [basis for basis in BASES if basis in bases]
    assert weakest(*known) == known[-1]


# ---- shares and bounds ------------------------------------------------------------------------------------

RESOURCES: tuple[Resource, ...] = ("nvdec", "cpu", "memory", "network")
amounts = st.floats(1.0, 1e5)
needs = st.lists(
    st.fixed_dictionaries({name: st.one_of(st.just(0.0), st.floats(1e-3, 50.0)) for name in RESOURCES}),
    min_size=1,
    max_size=8,
)


@st.composite
def servers(draw: st.DrawFn) -> Server:
    has = {}
    for name in RESOURCES:
        value = draw(amounts)
        has[name] = Amount(Figure(value, "", "given", ""), fixed=draw(st.floats(0.0, 0.5)) * value)
    return Server("", has)


@given(servers(), needs, st.floats(0.3, 1.0))
def test_as_many_mean_streams_as_a_server_carries_fit_and_one_more_does_not(
    server: Server, wanted: list[dict[Resource, float]], usable: float
) -> None:
    found = fit(server, wanted, usable)
    if found.carries is None or found.carries > 500:
        return
    mean: dict[Resource, float] = {
        name: sum(need[name] for need in wanted) / len(wanted) for name in RESOURCES
    }
    if found.carries:
        assert fit(server, [mean] * found.carries, usable).fits
    assert not fit(server, [mean] * (found.carries + 1), usable).fits


@given(servers(), needs, st.floats(0.3, 1.0))
def test_the_first_bound_is_the_one_that_carries_least(
    server: Server, wanted: list[dict[Resource, float]], usable: float
) -> None:
    found = fit(server, wanted, usable)
    counts = {bound.resource: bound.carries for bound in found.bounds if bound.carries is not None}
    assert (found.first is None) == (not counts)
    if found.first is not None:
        assert counts[found.first] == min(counts.values()) == found.carries


@given(servers(), needs)
def test_more_of_everything_never_carries_less(server: Server, wanted: list[dict[Resource, float]]) -> None:
    larger = Server(
        "",
        {
            name: replace(amount, figure=replace(amount.figure, value=2 * amount.figure.value))
            for name, amount in server.has.items()
        },
    )
    small, large = fit(server, wanted, 0.75).carries, fit(larger, wanted, 0.75).carries
    assert (small is None) == (large is None)
    assert small is None or large is None or large >= small


def test_streams_that_are_too_many_do_not_fit_and_leave_room_for_none() -> None:
    server = Server("", {"cpu": Amount(Figure(2.0, "cores", "given", ""), fixed=0.2)})
    found = fit(server, [{"cpu": 0.5}] * 4, 0.75)
    assert not found.fits
    assert (found.carries, found.more, found.first) == (2, 0, "cpu")
    assert found.bounds[0].share == pytest.approx(1.1)


def test_what_is_full_before_the_first_stream_carries_none() -> None:
    server = Server("", {"memory": Amount(Figure(10.0, "MB", "given", ""), fixed=9.0)})
    found = fit(server, [{"memory": 0.0}], 0.75)
    assert (found.fits, found.first, found.carries, found.more) == (False, "memory", 0, 0)


def test_streams_that_need_nothing_have_no_bound() -> None:
    server = Server("", {"network": Amount(Figure(1000.0, "Mbit/s", "given", ""))})
    found = fit(server, [{"network": 0.0}], 0.75)
    assert found.fits
    assert (found.first, found.carries, found.more) == (None, None, None)


# ---- the bill ---------------------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.integers(1, 300))
def test_the_bill_has_just_enough_servers(streams: int, carries: int) -> None:
    found = bill(streams, carries, 16, 1, Prices())
    assert found is not None
    assert found.servers * carries >= streams > (found.servers - 1) * carries


def test_a_thousand_streams_on_cards_beside_a_core_each() -> None:
    """Servers of 16 cores and a card that carry 100: ten, with 160 cores at 5 W and ten cards at 70 W."""
    prices = Prices(core_hour=0.04, core_watts=5.0, card_hour=0.35, card_watts=70.0)
    ours, theirs = bill(1000, 100, 16, 1, prices), core_a_stream(1000, 16, prices)
    assert ours is not None
    assert (ours.servers, ours.watts) == (10, 160 * 5 + 10 * 70)
    assert ours.month == pytest.approx((160 * 0.04 + 10 * 0.35) * 730)
    assert (theirs.servers, theirs.cores, theirs.watts) == (ceil(1000 / 16), 1000, 5000)
    assert theirs.month == pytest.approx(1000 * 0.04 * 730)


def test_a_server_that_carries_no_stream_has_no_bill() -> None:
    assert bill(1000, 0, 16, 1, Prices()) is None
    assert bill(1000, None, 16, 1, Prices()) is None

"""What a sampler will keep of a sequence is known before it comes there."""

import random
from collections.abc import Sequence as Many
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow.rehearse import Rehearsal, Sequence, Showing
from pipeline.flow.sample import Sampler, SamplingRules
from pipeline.flow.source import Packet

RATE = 10


def film(lengths: Many[int], orders: Many[int]) -> list[list[Packet]]:
    """Sequences of so many packets; ``orders`` says by how much pictures after the keyframe are sent late."""
    sequences, begin = [], 0
    for length in lengths:
        late = {n: orders[n % len(orders)] if n else 0 for n in range(length)}
        sent = sorted(range(length), key=lambda n: (n + late[n] if n else -1, n))
        sequences.append([packet(begin + n, keyframe=n == 0) for n in sent])
        begin += length
    return sequences


def packet(number: int, *, keyframe: bool) -> Packet:
    return Packet(number / RATE, keyframe=keyframe, size=1, arrived=0.0, pts=number)


class Player:
    """Plays sequences to a sampler, each picture shown as ``Showing`` says."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._showing = Showing(())
        self._sequence: list[Packet] = []  # whose keyframe was taken last, and is fed when the next packet is

    def play(self, sequence: list[Packet]) -> list[float]:
        """What is kept meanwhile: the last pictures of the sequence before, and of this one all but those."""
        kept = list[float]()
        for one in sequence:
            for order in self._sampler.take(one):
                if order.kind == "still":
                    self._sampler.kept(one.time_s)
                if order.kind == "feed" and order.packet is not None:
                    kept += self._feed(order.packet)
            if one.keyframe:
                self._sequence = sequence
        return kept

    def _feed(self, one: Packet) -> list[float]:
        if one.keyframe:
            self._showing = Showing(other.time_s for other in self._sequence)
        return [time_s for time_s in self._showing.feed(one.time_s) if self._sampler.wants(time_s)]


lengths = st.lists(st.integers(1, 60), min_size=2, max_size=6)
orders = st.lists(st.integers(0, 4), min_size=1, max_size=7)


@given(lengths, orders)
def test_each_picture_is_shown_once_in_order_and_not_before_it_was_fed(
    lengths: list[int], orders: list[int]
) -> None:
    for sequence in film(lengths, orders):
        times = [one.time_s for one in sequence]
        showing, shown, fed = Showing(times), list[float](), set[float]()
        for time_s in times:
            fed.add(time_s)
            shown += showing.feed(time_s)
            assert fed.issuperset(shown)
        assert shown == sorted(times)
        assert showing.rest() == []


@given(
    lengths, orders, st.sampled_from(["skip", "full"]), st.sampled_from([0.3, 1.0, 2.5]), st.integers(0, 9)
)
def test_what_was_rehearsed_is_what_is_kept(
    lengths: list[int], orders: list[int], plan: str, gap_s: float, seed: int
) -> None:
    """From the second sequence on; the sampler itself is not changed by it."""
    sequences = film(lengths, orders)
    rules = SamplingRules(max_gap_s=gap_s, plan=plan)  # type: ignore[arg-type]
    sampler = Sampler(rules, kind="file", rng=random.Random(seed))
    player = Player(sampler)
    player.play(sequences[0])
    rehearsal, expected = Rehearsal(sampler), list[float]()
    ends = [later[0].time_s for later in sequences[1:]]
    for sequence, following in pairwise(sequences[1:]):
        picks = rehearsal.picks(Sequence(sequence, following[0]))
        assert picks is not None
        assert all(sequence[0].time_s <= time_s < following[0].time_s for time_s in picks)
        expected += picks
    kept = [time_s for sequence in sequences[1:] for time_s in player.play(sequence)]
    assert [time_s for time_s in kept if ends[0] <= time_s < ends[-1]] == expected


def test_a_rehearsal_ends_where_the_plan_does() -> None:
    """Three short sequences in a row lead back to the keyframes."""
    sequences = film([30, 30, 5, 5, 5, 5, 5], [0])
    sampler = Sampler(SamplingRules(max_gap_s=1.0), kind="file", rng=random.Random(1))
    player = Player(sampler)
    player.play(sequences[0])
    player.play(sequences[1])
    assert sampler.plan == "skip"
    rehearsal = Rehearsal(sampler)
    found = [
        rehearsal.picks(Sequence(sequence, following[0])) for sequence, following in pairwise(sequences[2:])
    ]
    assert found[0] is not None
    assert found[-1] is None


def test_what_is_watched_cannot_be_rehearsed() -> None:
    sequences = film([30, 30, 30, 30], [0])
    sampler = Sampler(SamplingRules(max_gap_s=1.0, plan="skip"), kind="file", rng=random.Random(1))
    Player(sampler).play(sequences[0])
    sampler.watch(20.0)
    assert Rehearsal(sampler).picks(Sequence(sequences[1], sequences[2][0])) is None

"""The protocol of slots and events, model-checked: random interleavings of streams that work late.

Each write and each read takes two steps, so that an overlap shows as well as a wrong order."""

from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pipeline.backends.slot_protocol import SlotProtocol
from tests.gpu.lazy_device import LazyEvent, LazyStream

SLOTS, WRITERS, READERS = 3, 3, 2
CHECK = settings(max_examples=300, stateful_step_count=50, deadline=None, derandomize=True)
SEARCH = settings(CHECK, max_examples=2000, phases=[Phase.generate])  # found is enough, it need not be short


class Memory:
    """What the slots hold, and who is at them."""

    def __init__(self) -> None:
        self.value = [0] * SLOTS
        self.writers = [0] * SLOTS
        self.readers = [0] * SLOTS

    def write(self, stream: LazyStream, slot: int, value: int) -> None:
        def begin() -> None:
            assert self.writers[slot] == self.readers[slot] == 0, "overwritten while in use"
            self.writers[slot] += 1

        def end() -> None:
            self.value[slot] = value
            self.writers[slot] -= 1

        stream.do(begin)
        stream.do(end)

    def read(self, stream: LazyStream, slot: int, value: int) -> None:
        def begin() -> None:
            assert self.writers[slot] == 0, "read while it is written"
            self.readers[slot] += 1

        def end() -> None:
            assert self.value[slot] == value, "read before it was written, or after it was overwritten"
            self.readers[slot] -= 1

        stream.do(begin)
        stream.do(end)


class Interleavings(RuleBasedStateMachine):
    """Decoders write, the inference thread reads, frames are dropped; the streams step whenever they like."""

    protocol: ClassVar[type[SlotProtocol]] = SlotProtocol
    free: Bundle[int] = Bundle("free")
    written: Bundle[int] = Bundle("written")

    def __init__(self) -> None:
        super().__init__()
        self.slots = self.protocol(SLOTS, LazyEvent)
        self.memory = Memory()
        self.writers = [LazyStream() for _ in range(WRITERS)]
        self.readers = [LazyStream() for _ in range(READERS)]
        self.wanted = [0] * SLOTS
        self.number = 0

    @initialize(target=free)
    def begin(self) -> Any:
        return multiple(*range(SLOTS))

    @rule(target=written, slot=consumes(free), writer=st.integers(0, WRITERS - 1))
    def store(self, slot: int, writer: int) -> int:
        stream = self.writers[writer]
        self.number += 1
        self.wanted[slot] = self.number
        self.slots.write(slot, stream)
        self.memory.write(stream, slot, self.number)
        self.slots.written(slot)
        return slot

    @rule(target=free, slot=consumes(free), writer=st.integers(0, WRITERS - 1), queued=st.booleans())
    def fail_to_store(self, slot: int, writer: int, queued: bool) -> int:
        """The launch raised, after the kernel was queued or before."""
        self.slots.write(slot, self.writers[writer])
        if queued:
            self.memory.write(self.writers[writer], slot, -1)
        self.slots.free(slot)
        return slot

    @rule(slot=written, reader=st.integers(0, READERS - 1))
    def gather(self, slot: int, reader: int) -> None:
        stream = self.readers[reader]
        self.slots.read(slot, stream)
        self.memory.read(stream, slot, self.wanted[slot])

    @rule(target=free, slot=consumes(written))
    def release(self, slot: int) -> int:
        self.slots.free(slot)
        return slot

    @precondition(lambda self: any(stream.queue for stream in self.writers + self.readers))
    @rule(stream=st.integers(0, WRITERS + READERS - 1), steps=st.integers(1, 4))
    def work(self, stream: int, steps: int) -> None:
        for _ in range(steps):
            (self.writers + self.readers)[stream].step()

    def teardown(self) -> None:
        streams = self.writers + self.readers
        while sum(stream.step() for stream in streams):
            pass
        assert not any(stream.queue for stream in streams), "streams wait for each other"


class ForgetsTheLastUse(SlotProtocol):
    """A writer does not wait for who used the slot before."""

    def write(self, slot: int, stream: Any) -> None:
        self._places[slot].fence = None
        super().write(slot, stream)


class ReadsAtOnce(SlotProtocol):
    """A reader does not wait for the writer."""

    def read(self, slot: int, stream: Any) -> None:
        place = self._in(slot, "read", "written", "read")
        place.state, place.stream = "read", stream


class ForgetsTheReader(SlotProtocol):
    """A slot is freed without a word of who reads it."""

    def free(self, slot: int) -> None:
        self._places[slot].state = "written"
        super().free(slot)


class ForgetsTheFirstReader(SlotProtocol):
    """Of two readers only the latest counts."""

    def read(self, slot: int, stream: Any) -> None:
        place = self._in(slot, "read", "written", "read")
        stream.wait_event(place.written)
        place.state, place.stream = "read", stream


class SpeaksTooSoon(SlotProtocol):
    """The event is recorded before the kernel is queued."""

    def write(self, slot: int, stream: Any) -> None:
        super().write(slot, stream)
        stream.record(self._places[slot].written)

    def written(self, slot: int) -> None:
        place = self._in(slot, "handed on", "writing")
        place.state, place.fence = "written", place.written


class ForgetsAFailure(SlotProtocol):
    """A store that failed after its kernel was queued leaves no trace."""

    def free(self, slot: int) -> None:
        if self._places[slot].state == "writing":
            self._places[slot].state = "free"
        else:
            super().free(slot)


def test_no_interleaving_reads_a_slot_too_soon_or_overwrites_it_too_early() -> None:
    run_state_machine_as_test(Interleavings, settings=CHECK)


@pytest.mark.parametrize(
    "wrong",
    [
        ForgetsTheLastUse,
        ReadsAtOnce,
        ForgetsTheReader,
        ForgetsTheFirstReader,
        SpeaksTooSoon,
        ForgetsAFailure,
    ],
)
def test_a_protocol_with_a_planted_fault_is_found_out(wrong: type[SlotProtocol]) -> None:
    machine = type(wrong.__name__, (Interleavings,), {"protocol": wrong})
    with pytest.raises(AssertionError, match=r"overwritten|read (while|before)"):
        run_state_machine_as_test(machine, settings=SEARCH)


def test_a_call_out_of_turn_is_refused_and_changes_nothing() -> None:
    slots, stream = SlotProtocol(1, LazyEvent), LazyStream()
    with pytest.raises(ValueError, match="slot 0 is free: it cannot be handed on"):
        slots.written(0)
    with pytest.raises(ValueError, match="slot 0 is free: it cannot be read"):
        slots.read(0, stream)
    with pytest.raises(ValueError, match="slot 0 is free: it cannot be freed"):
        slots.free(0)
    slots.write(0, stream)
    with pytest.raises(ValueError, match="slot 0 is writing: it cannot be written"):
        slots.write(0, stream)
    with pytest.raises(ValueError, match="slot 0 is writing: it cannot be read"):
        slots.read(0, stream)
    slots.written(0)
    assert slots.state(0) == "written"
    assert len(stream.queue) == 1, "only the event was recorded"

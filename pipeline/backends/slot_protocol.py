"""Which stream waits for which event before it touches a slot of a GPU frame pool.

A CUDA stream does its work later, in its own order. So that no slot is read before it is written, nor
overwritten before it is read, each slot has two events and goes around in this circle:

    free ──write──▶ writing ──written──▶ written ──read──▶ read
      ▲               │                     │               │
      └───────────────┴────────free─────────┴───────────────┘

``write``    the writer's stream waits for the last use of the slot, whoever's that was
``written``  the writer's stream records ``written``; only after that is the frame handed on
``read``     the reader's stream waits for ``written``
``free``     the reader's stream records ``read``, then the slot may be lent again

Nothing here waits on the host. Pure: a stream is anything with CuPy's ``record`` and ``wait_event``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

State = Literal["free", "writing", "written", "read"]


class Stream(Protocol):
    """Work in order. A wait is for the event's latest record at the time of the call."""

    def record(self, event: Any) -> Any: ...

    def wait_event(self, event: Any) -> None: ...


@dataclass(slots=True)
class _Place:
    written: Any
    read: Any
    state: State = "free"
    stream: Any = None  # the one that writes, or the latest that reads
    fence: Any = None  # event of the last use; None: never used


class SlotProtocol:
    """The events of all slots. A slot belongs to one thread at a time, its lease's; different slots do not
    touch each other. A call that is out of turn raises ``ValueError`` and changes nothing."""

    def __init__(self, slots: int, new_event: Callable[[], Any]) -> None:
        self._places = [_Place(new_event(), new_event()) for _ in range(slots)]

    def write(self, slot: int, stream: Stream) -> None:
        """Call before a kernel that writes the slot is queued on ``stream``."""
        place = self._in(slot, "written", "free")
        if place.fence is not None:
            stream.wait_event(place.fence)
        place.state, place.stream = "writing", stream

    def written(self, slot: int) -> None:
        """Call when that kernel has been queued, before the frame is handed on."""
        place = self._in(slot, "handed on", "writing")
        place.stream.record(place.written)
        place.state, place.fence = "written", place.written

    def read(self, slot: int, stream: Stream) -> None:
        """Call before a kernel that reads the slot is queued on ``stream``. May be repeated."""
        place = self._in(slot, "read", "written", "read")
        if place.state == "written":
            stream.wait_event(place.written)
        elif place.stream != stream:  # one event stands for all readers: they go one after another
            place.stream.record(place.read)
            stream.wait_event(place.read)
        place.state, place.stream = "read", stream

    def free(self, slot: int) -> None:
        """Call when all that uses the slot has been queued, or when nothing was; before it is lent again."""
        place = self._in(slot, "freed", "writing", "written", "read")
        if place.state == "writing":  # it failed half-way: what was queued, if anything, still counts
            place.stream.record(place.written)
            place.fence = place.written
        elif place.state == "read":
            place.stream.record(place.read)
            place.fence = place.read
        place.state, place.stream = "free", None

    def state(self, slot: int) -> State:
        """Where in the circle the slot is."""
        return self._places[slot].state

    def _in(self, slot: int, what: str, *allowed: State) -> _Place:
        place = self._places[slot]
        if place.state not in allowed:
            raise ValueError(f"slot {slot} is {place.state}: it cannot be {what}")
        return place

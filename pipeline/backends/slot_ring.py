"""Who has which slot: leases in ring order, a reserve for live frames, readers that wait for room."""

from collections.abc import Callable
from threading import Condition, Lock

from pipeline.errors import BackendError, Closed
from pipeline.flow.frames import Frame


class SlotRing:
    """The leases of one pool, without its pixels. Thread-safe.

    Slots are lent around the ring, so that the frames of a batch are neighbours as a rule. Frames of files
    leave ``live_reserve`` slots free for live ones, which do not wait."""

    def __init__(self, slots: int, live_reserve: int) -> None:
        if slots < 1 or not 0 <= live_reserve < slots:
            raise BackendError(
                f"a frame pool of {slots} slots with {live_reserve} kept for live streams has none for files"
            )
        self.slots = slots
        self.free = slots
        self._leases: list[Frame | None] = [None] * slots
        self._next = 0
        self._reserve = live_reserve
        self._closed = False
        self._lock = Lock()
        self._room_live = Condition(self._lock)
        self._room_file = Condition(self._lock)

    def lease(self, frame: Frame, timeout: float | None) -> bool:
        """Give ``frame`` the next free slot; False when there was none within ``timeout`` seconds.

        :raises Closed: the ring was closed."""
        kept, room = (0, self._room_live) if frame.live else (self._reserve, self._room_file)
        with self._lock:
            found = room.wait_for(lambda: self._closed or self.free > kept, timeout)
            if self._closed:
                raise Closed("the frame pool is closed")
            if not found:
                return False
            while self._leases[self._next] is not None:
                self._next = (self._next + 1) % self.slots
            frame.slot = self._next
            self._leases[frame.slot] = frame
            self._next = (self._next + 1) % self.slots
            self.free -= 1
            return True

    def give_back(self, frame: Frame, before: Callable[[int], None]) -> None:
        """End the lease; ``before(slot)`` is called first, while no one else can have the slot.

        :raises ValueError: ``frame`` does not hold its slot."""
        with self._lock:
            if not 0 <= frame.slot < self.slots or self._leases[frame.slot] is not frame:
                raise ValueError(f"{frame!r} does not hold its slot (any more)")
            before(frame.slot)
            self._leases[frame.slot] = None
            self.free += 1
            self._room_live.notify()
            if self.free > self._reserve:
                self._room_file.notify()

    def close(self) -> None:
        """Wake every waiting reader with ``Closed``."""
        with self._lock:
            self._closed = True
            self._room_live.notify_all()
            self._room_file.notify_all()

"""Stream time: from the timestamps that a container or camera gives to seconds that can be relied on."""

from fractions import Fraction

BRIDGE_S = 10.0
"""A live stream that leaps forward by more than this has changed its clock, not skipped its content."""
REORDER_S = 1.0
"""Presentation may lie this far before what was shown already: B-pictures. More is a jump backward."""
REORDER_PICTURES = 16
"""The most pictures that H.264 and HEVC hold back; at low rates they are more than ``REORDER_S``."""
MAX_RATE = 240
"""Pictures a second; a container that states more (90000 is common) states its time base, not its rate."""
DEFAULT_STEP_S = 0.04


class StreamClock:
    """Stream time of one session.

    Give it the timestamps of every packet, in decode order. Times are seconds since the first keyframe's
    presentation, whatever number that had. Timestamps of ``wrap_bits`` bits may wrap any number of times (0:
    they do not wrap). Missing ones are filled in from dts, or from the picture rate: ``frame_rate``, or what
    was seen. A jump backward (a camera that restarts its clock, files joined end to end) is bridged: time
    goes on one picture after the last. With ``bridge`` a leap forward of more than ``BRIDGE_S`` is bridged as
    well; without it (files, whose index is honest) a hole stays a hole. So the times of keyframes always
    rise, and no time lies more than the reordering window before one that was given earlier."""

    def __init__(
        self, time_base: Fraction, frame_rate: Fraction | None, wrap_bits: int = 33, *, bridge: bool = True
    ) -> None:
        self._time_base = time_base
        self._numerator, self._denominator = time_base.numerator, time_base.denominator
        self._bridge_ticks = self._ticks(BRIDGE_S)
        self._reorder_ticks = self._ticks(REORDER_S)
        self._period = 1 << wrap_bits if wrap_bits else 0
        self._bridge = bridge
        stated = frame_rate if frame_rate and 0 < frame_rate <= MAX_RATE else None
        self._step = self._ticks(1 / stated if stated else Fraction(DEFAULT_STEP_S))
        self._learn = stated is None
        self._epoch: int | None = None  # presentation of the first keyframe, on the timeline
        self._raw: int | None = None  # the last decode timestamp as it came; None: none came yet
        self._order = 0  # the same on the timeline
        self._high = 0  # the latest presentation so far
        self._sought = False

    @property
    def decode_s(self) -> float:
        """When the last packet is to be decoded: rises with every packet; may lie a little before 0."""
        return self._seconds(self._order)

    def time_s(self, pts: int | None, dts: int | None, keyframe: bool) -> float | None:
        """Seconds since the session's first keyframe; None before it came, and for a picture shown before
        it."""
        if self._epoch is None:
            if not keyframe:
                return None
            self._begin(pts, dts)
            return 0.0
        raw = dts if dts is not None else pts
        if raw is None or self._raw is None:
            order = self._order + self._step
        else:
            order = self._order + self._wrapped(raw - self._raw)
        if not self._sought:
            order += self._leap(order)
            if self._learn and 0 < order - self._order <= self._bridge_ticks:
                self._step = order - self._order
        shown = self._shown(order, pts, raw, keyframe)
        shift = 0 if self._sought else self._fall(shown, keyframe)
        self._raw = raw if raw is not None else None if self._raw is None else self._raw + self._step
        self._order = order + shift
        self._high = shown if self._sought else max(self._high, shown + shift)
        self._sought = False
        time_s = self._seconds(shown + shift)
        return time_s if time_s >= 0 else None

    def pts_at(self, time_s: float) -> int:
        """The container's timestamp of ``time_s``, in ticks, for seeking. Call it after the first
        keyframe."""
        epoch = 0 if self._epoch is None else self._epoch
        moved = 0 if self._raw is None else self._raw - self._order
        return epoch + self._ticks(time_s) + moved

    def sought(self) -> None:
        """The next packet is from elsewhere, on purpose: its jump is none."""
        self._sought = True

    def _begin(self, pts: int | None, dts: int | None) -> None:
        self._raw = dts if dts is not None else pts
        self._order = self._raw or 0
        self._epoch = self._high = self._order + (self._wrapped(pts - self._order) if pts is not None else 0)

    def _leap(self, order: int) -> int:
        """By how much to move this packet and all after it, so that decoding order goes on where it was."""
        forward = order - self._order - self._step
        if forward < -self._window() or (self._bridge and forward > self._bridge_ticks):
            return -forward
        return 0

    def _shown(self, order: int, pts: int | None, raw: int | None, keyframe: bool) -> int:
        """Presentation on the timeline."""
        if pts is not None and raw is not None:
            return order + self._wrapped(pts - raw)
        if raw is None or keyframe:  # a keyframe's dts lies before its presentation by an unknown delay
            return max(order, self._high + self._step)
        return order

    def _fall(self, shown: int, keyframe: bool) -> int:
        """By how much to move on, when presentation would fall back behind what was shown."""
        # All that comes before a keyframe in decode order is shown before it: a keyframe never falls back.
        lowest = self._high + 1 if keyframe else self._high - self._window()
        return self._high + self._step - shown if shown < lowest else 0

    def _window(self) -> int:
        return max(self._reorder_ticks, REORDER_PICTURES * self._step)

    def _wrapped(self, difference: int) -> int:
        """The difference of two timestamps that is nearest to 0."""
        if not self._period:
            return difference
        half = self._period >> 1
        return (difference + half) % self._period - half

    def _ticks(self, seconds: Fraction | float) -> int:
        return max(1, round(seconds / self._time_base)) if seconds > 0 else 0

    def _seconds(self, ticks: int) -> float:
        return (ticks - (self._epoch or 0)) * self._numerator / self._denominator

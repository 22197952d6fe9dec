"""Which packets are decoded and which pictures are kept: ``max_gap_s`` at the lowest decode cost.

A gap is the stream time between neighbouring samples; it is kept when at most ``max_gap_s`` × ``TOLERANCE``.
One of three plans is in force:

``keyframes``  a keyframe is decoded alone, when the gap needs it. Each sample draws when the next is due,
               from U(0.6, 1.0) of ``max_gap_s``; of the keyframes that keep the gap, the nearest is taken.
``skip``       every packet is fed, but a picture that is not due and that no other needs is not decoded (with
               x264's defaults a quarter of the work); kept is what is due, or whose successor would be late.
``full``       the same, and everything is decoded.

``auto`` begins with ``keyframes``. It holds the packets since the last keyframe, so that when the next one
does not come in time it can feed them and still find a picture within the gap: the way into ``skip``. Three
good GOPs in a row are the way back. The explicit plan ``keyframes`` never feeds for the gap's sake. While
something suspicious is watched, everything is fed as well.
"""

import random
from collections.abc import Iterable, Iterator
from copy import copy, deepcopy
from math import inf
from typing import Literal

from pipeline.flow.sample_ahead import GOPS_TO_TRUST, Ahead, Gops
from pipeline.flow.sample_order import FLUSH, RESET, Order, feed
from pipeline.flow.sample_rules import FRESH_S, HELD_BYTES, TOLERANCE, Plan, SamplingRules
from pipeline.flow.source import Kind, Packet

__all__ = ["TOLERANCE", "Order", "Plan", "Sampler", "SamplingRules"]


class Sampler:
    """Chooses for one session. Holds packets, never pictures; knows no clock but the packets' times.

    ``plan`` is the one in force, ``why`` one sentence for the status, ``gop_s`` the longest of the last few
    distances between keyframes (None until two came), ``held_bytes`` the size of the packets held. While
    ``audits`` is False none begins; ``audits_refused`` counts them, until the reader sets it back."""

    def __init__(self, rules: SamplingRules, *, kind: Kind, rng: random.Random) -> None:
        self.rules = rules
        self._feeding_plan: Literal["skip", "full"] = "full" if rules.plan == "full" else "skip"
        self.plan: Literal["keyframes", "skip", "full"] = (
            self._feeding_plan if rules.plan in ("full", "skip") else "keyframes"
        )
        self.why = "keyframes, until they prove too rare" if rules.plan == "auto" else "set in the config"
        self.held_bytes, self.kind = 0, kind
        self._live, self._rng = kind == "live", rng
        self.gap_s = 0.0  # in force: the promise, or more under overload
        self._limit = self._rescue_s = 0.0
        self.stretch(rules.max_gap_s)
        self._last: float | None = None  # time of the latest sample
        self._due = -inf
        self._newest_s = -inf  # of all packets
        self._seen_s = -inf  # of all pictures that came out of the decoder
        self._final_s = inf  # of the file's last picture, once it is known
        self._gops = Gops()
        self._alone = True  # keyframes of this session decode by themselves, as far as is known
        self._dense_until_s = -inf  # watched closely up to here
        self._holds = rules.plan == "auto" or kind == "file"
        self._held: list[Packet] = []  # since the latest sound keyframe
        self._spare: Packet | None = None  # the latest keyframe passed over since the last sample
        self._retry: list[Order] = []
        # Whether this GOP is fed, for an audit or its last picture; "later": once the audited one has come.
        self._feeding: Literal["no", "later", "now"] = "no"
        self._audit_s = inf
        self.audits, self.audits_refused = True, 0
        self._ahead = Ahead(live=self._live)
        self._leaving = False  # the orders of this packet are the last ones of the plan

    def stretch(self, gap_s: float) -> None:
        """From now on so many seconds may lie between samples: ``max_gap_s``, or more under overload.

        A stretched gap is no promise: what goes beyond it waits for the next keyframe, up to ``most_gap_s``.
        Decoding whole GOPs to keep it, in all streams at once, would be the next overload. But it is kept on
        average: were the last keyframe within it taken each time, a gap of 3 s over GOPs of 2 s would spare
        nothing."""
        self.gap_s = gap_s
        bound_s = max(gap_s, self.rules.most_gap_s) if self._stretched else gap_s
        self._limit = gap_s * TOLERANCE - 1e-6  # never on the wrong side of the ledger's rounding
        self._bound_s = bound_s * TOLERANCE - 1e-6
        self._rescue_s = max(self._rescue_s, self._bound_s)  # a gap that has begun may be ended by a keyframe

    @property
    def _stretched(self) -> bool:
        return self.gap_s > self.rules.max_gap_s

    @property
    def gop_s(self) -> float | None:
        return self._gops.longest_s

    def watch(self, until_s: float) -> None:
        """Look closely, at ``burst_fps``, up to stream time ``until_s``; -inf: no longer. At a live stream
        from now on: pictures of what was passed over would be late.

        In plan ``keyframes`` set in the config only keyframes are decoded, whatever is suspected."""
        self._dense_until_s = until_s
        if self._last is not None and self._watching(self._last):
            self._due = self._last + 1.0 / self.rules.burst_fps
            if self._live:
                self._due = max(self._due, min(self._newest_s, self._last + self.gap_s))

    @property
    def watching(self) -> bool:
        """Whether the newest packet lies in a time that is looked at closely."""
        return self._watching(self._newest_s)

    def _watching(self, time_s: float) -> bool:
        return time_s < self._dense_until_s and self.rules.plan != "keyframes"

    def take(self, packet: Packet | None, *, last: bool = False) -> list[Order]:
        """What to decode, now that ``packet`` has come; packets before the first keyframe are passed over.

        ``last``: none follows in this file. ``take(None, last=True)`` ends a file that broke off."""
        orders: list[Order] = []
        self._leaving = False
        if packet is not None and (packet.keyframe or self._gops.begun):
            self._newest_s = max(self._newest_s, packet.time_s)
            orders = self._decide(packet)
        return orders + self._finish() if last else orders

    def rests(self, keyframe_s: float) -> bool:
        """Whether no packet before the next keyframe, which is shown at ``keyframe_s``, would change
        anything: a file's reader may then leave them out. Not for the last GOP."""
        if self.plan != "keyframes" or self._feeding != "no":
            return False
        if self._last is None or self._watching(keyframe_s):
            return False
        if self.rules.plan == "keyframes" and self._spare is None:
            return True
        return self._alone and keyframe_s <= self._last + self._limit

    def forecast(self, keyframes: Iterable[Packet]) -> Iterator[Packet]:
        """Which of the coming keyframes will be decoded alone, if nothing unforeseen happens; ends where the
        plan does. It changes nothing."""
        ahead = self.twin()
        for packet in keyframes:
            if ahead.plan != "keyframes":
                return
            for order in ahead._decide(packet):
                if order.kind == "still" and order.packet is not None and ahead.is_new(order.packet.time_s):
                    yield order.packet
                    ahead.kept(order.packet.time_s)

    def twin(self) -> "Sampler":
        """One that would decide alike, and goes its own way; it holds no packets."""
        other = copy(self)
        other._rng, other._gops, other._ahead = copy(self._rng), deepcopy(self._gops), self._ahead.twin()
        other._held, other._retry = [], []
        return other

    @property
    def pending(self) -> list[float]:
        """Times of packets that were ordered to be fed and whose pictures have not come, rising."""
        return self._ahead.pending

    def would_keep(self, time_s: float) -> bool:
        """What ``wants`` would answer. It changes nothing."""
        return self.is_new(time_s) and self._is_due(time_s)

    def wants(self, time_s: float) -> bool:
        """Whether to keep this picture of a ``feed`` or ``flush``: asked once for each, in their order."""
        kept = self.would_keep(time_s)
        self._seen_s = max(self._seen_s, time_s)
        self._ahead.came(time_s)
        if kept:
            self._sampled(time_s)
        return kept

    def is_new(self, time_s: float) -> bool:
        """Whether a sample at this time would still be the latest."""
        return self._last is None or time_s > self._last

    def kept(self, time_s: float) -> None:
        """The picture of a ``still`` came out: it is a sample."""
        self._sampled(time_s)

    def damaged(self, order: Order) -> None:
        """An order raised ``DecodeError``: an earlier keyframe takes its place, or the next one does."""
        if order.kind != "still":
            self._audit_s = inf
            return
        if self._held and self._held[0] is order.packet:
            self._hold(None)
        if self._spare is order.packet:
            self._spare = None
        elif self._spare is not None:
            self._retry.append(Order("still", self._spare))

    def no_picture(self) -> None:
        """A ``still`` gave nothing though it is sound: such a keyframe needs the packets around it."""
        self._alone = False

    def again(self) -> list[Order]:
        """What else to decode for this packet, in view of how its orders went."""
        if self._held and self.is_new(self._seen_s) and self._seen_s < self._final_s < inf:
            self._final_s = self._seen_s  # the file's end is damaged: this was its last picture
            return [RESET, *feed(self._held), FLUSH]
        retry, self._retry = self._retry, []
        return retry

    def _sampled(self, time_s: float) -> None:
        self._last, due_s, self._rescue_s = time_s, self._due, self._bound_s
        self._due = time_s + self._rng.uniform(0.6, 1.0) * self.gap_s
        if self._watching(time_s):
            self._due = time_s + 1.0 / self.rules.burst_fps
        elif self._stretched and self.plan == "keyframes":
            early_s = due_s - time_s  # made up for by the next one, but not what was missed in an overload
            rounding_s = (self.gop_s or 0.0) / 2.0 + 1e-6
            kept = early_s if abs(early_s) <= rounding_s else 0.0
            self._due = time_s + kept + self._rng.uniform(0.8, 1.2) * self.gap_s
        if self._spare is not None and self._spare.time_s <= time_s:
            self._spare = None

    def _is_due(self, time_s: float) -> bool:
        if self._last is None or time_s >= self._final_s:
            return True
        if self.plan == "keyframes" and not self._leaving:
            return time_s >= self._audit_s
        return time_s >= self._due or self._ahead.following(time_s) > self._last + self._limit

    def _decide(self, packet: Packet) -> list[Order]:
        if packet.keyframe:
            self._gops.add(packet.time_s)
        if self.plan != "keyframes":
            if not (packet.keyframe and self._keyframes_do()):
                return self._feed(self._ahead.feed(packet))
            return self._leave_full(packet) + self._keyframe(packet)
        if not self._alone and self.rules.plan == "auto":
            return self._enter_full(packet, "the keyframes do not decode by themselves")
        if self._watching(packet.time_s) and self._held:
            return self._enter_full(packet, "something suspicious is looked at closely")
        rescue, settled = self._rescue(packet)
        if settled:
            return rescue
        return rescue + (self._keyframe(packet) if packet.keyframe else self._between(packet))

    def _keyframe(self, packet: Packet) -> list[Order]:
        orders = [FLUSH] if self._feeding == "now" else []
        self._hold(packet)
        if not self._needed(packet.time_s):
            self._spare, self._feeding = packet if self.is_new(packet.time_s) else None, "no"
            return orders
        orders.append(Order("still", packet))
        audited, self._feeding = self._feeding != "no", "no"
        if not audited and self.gop_s is not None and self._rng.random() < self.rules.audit:
            if not self.audits:
                self.audits_refused += 1
                return orders
            self._audit_s = packet.time_s + self._rng.random() * self.gop_s
            self._feeding = "later" if self._holds else "now"
            if self._feeding == "now":
                orders.append(Order("feed", packet))
        return orders

    def _needed(self, time_s: float) -> bool:
        """Whether the next keyframe would be too late, or is further from the due time than this one."""
        if self._last is None or self.gop_s is None or self._gops.known < GOPS_TO_TRUST:
            return True
        following = time_s + self.gop_s
        if following > self._last + (self._rescue_s if self._stretched else self._limit):
            return True
        return abs(time_s - self._due) <= abs(following - self._due)

    def _between(self, packet: Packet) -> list[Order]:
        """A packet that is no keyframe: held, and fed only for an audit. That feeds what is held in one go: a
        decoder with the pictures that others refer to holds 25 MB of a 1080p stream."""
        if self._held and self.held_bytes + packet.size > HELD_BYTES:
            if self.rules.plan == "auto":
                return self._enter_full(packet, "the distance between keyframes is too large to hold")
            held, self._audit_s, self._feeding = self._held, inf, "now"  # on, without holding, to the end
            self._hold(None)
            return [RESET, *feed(held), Order("feed", packet)]
        self._hold(packet)
        if self._feeding == "no" or (self._feeding == "later" and packet.time_s < self._audit_s):
            return []
        if self._audit_s <= self._seen_s:
            self._feeding = "no"
            return [RESET]
        fed, self._feeding = self._held if self._feeding == "later" else [packet], "now"
        return [Order("feed", one, not one.time_s < self._audit_s < inf) for one in fed]

    def _rescue(self, packet: Packet) -> tuple[list[Order], bool]:
        """When the gap is about to be missed: the keyframe passed over, or all that is held; and whether the
        orders take care of ``packet``, too."""
        if self._last is None or packet.time_s <= self._last + self._rescue_s:
            return [], False
        orders, reached = [], self._last
        spare = self._spare
        stale = spare is not None and self._live and packet.time_s - spare.time_s > FRESH_S
        if spare is not None and not (stale and self._feedable(reached, packet)):
            orders, reached = [Order("still", spare)], spare.time_s
        if packet.time_s <= reached + self._rescue_s or not self._feedable(reached, packet):
            return orders, False
        why = f"keyframes come less often than every {self.rules.max_gap_s:g} s"
        return orders + self._enter_full(packet, why), True

    def _feedable(self, reached: float, packet: Packet) -> bool:
        """Whether feeding gives a newer picture: a held one, or one shown before this keyframe (open GOP)."""
        newer = packet.keyframe or any(held.time_s > reached for held in self._held)
        return self.rules.plan == "auto" and bool(self._held) and newer

    def _hold(self, packet: Packet | None) -> None:
        if packet is None or packet.keyframe:
            self._held, self.held_bytes = [], 0
        if packet is not None and self._holds and (packet.keyframe or self._held):
            self._held.append(packet)
            self.held_bytes += packet.size

    def _enter_full(self, packet: Packet, why: str) -> list[Order]:
        self.plan, self.why = self._feeding_plan, why
        held = [] if packet.keyframe and not self._alone else self._held
        self._hold(None)
        self._ahead = Ahead(held, live=self._live)
        self._spare, self._feeding, self._audit_s = None, "no", inf
        if self._last is not None and not self._watching(self._last):
            self._due = self._last + self.gap_s  # the newest picture that keeps the gap
        return [RESET, *self._feed(held), *self._feed(self._ahead.feed(packet))]

    def _feed(self, packets: list[Packet]) -> list[Order]:
        """Feed these; in ``skip`` those well before the due time need no picture, unless it may be the file's
        last."""
        if self.plan != "skip" or self._last is None or self._ahead.interval_s == 0.0:
            return feed(packets)
        soon_s = self._due - 2.0 * self._ahead.interval_s
        if not self._live:
            soon_s = min(soon_s, self._newest_s)
        return [Order("feed", packet, packet.keyframe or packet.time_s >= soon_s) for packet in packets]

    def _keyframes_do(self) -> bool:
        if self.rules.plan != "auto" or not self._alone or self.watching:
            return False
        return self._gops.good(self._limit)

    def _leave_full(self, packet: Packet) -> list[Order]:
        self._gops.trust()
        self.plan, self.why = "keyframes", f"a keyframe every {self.gop_s or 0:.3g} s keeps the gap"
        self._leaving = True
        return [*feed([ready for ready in self._ahead.feed(packet) if ready is not packet]), FLUSH]

    def _finish(self) -> list[Order]:
        """The file's last picture, which is the newest of the GOP that is held or fed."""
        self._final_s, self._audit_s = self._newest_s, inf
        if self.plan != "keyframes" or (self._feeding != "no" and not self._held):
            return [*feed(self._ahead.end()), FLUSH]
        if len(self._held) == 1:
            return [Order("still", self._held[0])]
        self._ahead, self._leaving = Ahead(self._held, live=self._live), True
        return [RESET, *feed(self._held), FLUSH] if self._held else []

"""One stream on the inference thread: settled samples to segments and coverage."""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from pipeline.config import Config, Stream
from pipeline.events import WallClock
from pipeline.flow.govern import Share
from pipeline.flow.look import FILE_LOOK_S, LIVE_LOOK_S, Look
from pipeline.flow.segment import EndReason
from pipeline.masking import mask_text, mask_url
from pipeline.outbox import Finished, Progress
from pipeline.service.account import Account
from pipeline.service.flagging import Change, Flagging
from pipeline.service.lead import Lead
from pipeline.service.messages import Begin, End, Gone, Item, Trouble
from pipeline.service.order import Model, Sequencer, Verdict
from pipeline.service.orders import Add
from pipeline.service.report import Recording, Reporter
from pipeline.service.session import Position

RECORD_S, FLAGGED_RECORD_S = 5.0, 1.0
"""How often it is recorded how far a stream got; what a killed worker did since is screened again."""
SURE_GAPS = 1.5
"""A sample older than the newest packet by this many ``max_gap_s`` has been sent, if it will ever be."""


class StreamScreen:
    """A stream's sessions, segments and seconds. Not thread-safe: the inference thread's own.

    ``now`` is always monotonic seconds, ``unix`` Unix seconds of the same moment."""

    def __init__(
        self, order: Add, config: Config, models: Mapping[str, Model], position: Position, lead: Lead
    ) -> None:
        self.number = order.number
        self.results = Sequencer()
        self.gone: Gone | None = None
        self.stop_reason: EndReason = "shutdown"
        self._stream: Stream = order.stream
        self._shown = mask_url(order.stream.url)
        self._kind = order.kind
        self._live = order.kind == "live"
        self._config = config
        self._position = position
        self._lead = lead
        self._look_until_s = 0.0
        self._recorded_s = 0.0
        self._latency: tuple[float | None, float | None] = (None, None)
        sampling = config.sampling_of(order.stream)
        self._max_gap_s, self._most_gap_s = sampling.max_gap_s, sampling.most_gap_s
        categories = tuple(dict.fromkeys(c for model in models.values() for c in model.categories))
        self._flagging = Flagging(order.stream, config, categories)
        self._report = Reporter(order.stream, order.kind, config)
        self._account = Account(
            order.kind,
            self._max_gap_s,
            config.batch.stale_s,
            start_clock_s=order.start_clock_s,
            ledger=order.ledger,
            worker_lost_s=order.worker_lost_s,
        )
        self._account.published(order.segments)
        self._begin: Begin | None = None
        self._dirty = False
        self._state = "connecting"
        self._reason = ""
        self._sessions = 0
        self._had_worker = order.worker_lost_s is not None and order.ledger is not None

    @property
    def share(self) -> Share | None:
        """What may be taken from the stream under overload; nothing from a file, which waits."""
        if not self._live or self.gone is not None:
            return None
        return Share(self._stream.priority, self._max_gap_s, self._most_gap_s)

    def stretch(self, gap_s: float) -> None:
        """The gap in force from now on."""
        self._position.gap_s = gap_s

    @property
    def _stretched(self) -> bool:
        return self._position.gap_s > self._max_gap_s * 1.001

    @property
    def segments(self) -> int:
        """Segments published so far."""
        return self._account.segments

    def ledger(self) -> dict[str, Any] | None:
        """The seconds of a live stream that has left and goes on under other rules, else None."""
        goes_on = self._live and self.stop_reason == "policy_change" and self.gone is not None
        return self._account.snapshot() if goes_on else None

    def turn(self, now: float, unix: float) -> None:
        """Decide all that is settled, in order; then let time pass."""
        while self._decide_settled(now, unix):
            pass
        if self.results.empty and not self.results.looking and self.gone is None:
            self._pass_time(now, unix)

    def _decide_settled(self, now: float, unix: float) -> bool:
        """As far as it goes; True when a closer look was answered just now, so that it may go on."""
        for entry in self.results.settled():
            match entry:
                case Verdict():
                    self._decide(entry, now, unix)
                case Begin():
                    self._open(entry, unix)
                case Trouble():
                    self._trouble(entry, unix)
                case End():
                    self._close(entry, now, unix)
                case Gone():
                    self._leave(entry, unix - (now - entry.clock_s))
        if not self.results.looking:
            return False
        seen = self.results.answer(give_up=now >= self._look_until_s)
        if seen is not None:
            self._publish(self._flagging.refine(seen), unix)
        return seen is not None

    def give_up(self, surprise: Exception, now: float, unix: float) -> None:
        """Something went wrong that was not foreseen: it costs this stream, and is logged with its
        traceback."""
        structlog.get_logger().error("stream.surprise", stream=self._stream.id, exc_info=surprise)
        self._state, self._reason = "failed", f"{type(surprise).__name__}: {mask_text(str(surprise))}"
        self.gone = Gone(now, "stream_lost", self._reason)
        self._report.state("failed", unix, self._reason)

    def collect(self, now: float) -> Recording:
        """What has to be recorded since the last call; how far it got is said beside an event, every second
        while a segment is open, and every few seconds else."""
        out = self._report.collect()
        if self._dirty and (self._begin is not None or self._live):
            every_s = FLAGGED_RECORD_S if self._flagging.open_segments else RECORD_S
            if out or now - self._recorded_s >= every_s:
                out.progress.append(self._progress(self._begin))
                self._dirty, self._recorded_s = False, now
        return out

    # ---- sessions -----------------------------------------------------------------------------------------

    def _open(self, begin: Begin, unix: float) -> None:
        self._begin = begin
        self._sessions += 1
        self._account.begin(begin)
        self._report.session(begin.session, begin.item.path)
        self._flagging.begin(begin.resumed_s, begin.previous)
        if self._live and self._state != "screening":
            back = self._had_worker or self._state != "connecting"
            self._report.state("recovered" if back else "connected", unix)
        self._state, self._reason = "screening", ""

    def _trouble(self, trouble: Trouble, unix: float) -> None:
        self._account.lost(trouble.cause, trouble.clock_s)
        if trouble.cause == "corrupt":
            return
        self._reason = mask_text(trouble.text or trouble.reason)
        if self._state not in ("lost", "stalled"):
            self._state = "lost"
            self._report.state("lost", unix, self._reason)

    def _close(self, end: End, now: float, unix: float) -> None:
        """The session is over; what is open ends with it."""
        reason, time_s = end.reason, end.time_s
        if end.reason == "shutdown":
            reason = self.stop_reason
            if not self._live and self._account.last_scored_s is not None:
                time_s = self._account.last_scored_s  # from there on it is screened again
        self._publish(self._flagging.end(time_s, reason), unix)
        self._reason = mask_text(end.text or end.word)
        if self._live:
            self._close_live(end, unix)
        elif end.reason != "shutdown":
            self._close_file(end, now, unix)

    def _close_live(self, end: End, unix: float) -> None:
        if end.reason != "stream_lost":
            return  # the next pass, or a goodbye, follows at once
        self._account.lost(end.cause or "disconnected", end.clock_s)
        self._state = "stalled" if end.cause == "stalled" else "lost"
        self._report.state("stalled" if end.cause == "stalled" else "lost", unix, self._reason)

    def _close_file(self, end: End, now: float, unix: float) -> None:
        """A file's account: what was screened, what was not, and whether it was a video at all."""
        begin, self._begin, self._dirty = self._begin, None, False
        totals = None
        failed = begin is None or end.item is not None or self._account.last_scored_s is None
        if begin is None or end.item is not None:
            self._report.session(None, end.item.path if end.item else "")
        else:
            gaps, totals = self._account.end_file(begin, end)
            self._report.gaps(gaps, now, unix)
            if begin.item.path and not failed:
                item = begin.item
                self._report.out.finished.append(Finished(self._stream.id, item.path, item.size, item.mtime))
        self._state = "failed" if failed else "ended"
        self._reason = self._reason or ("no picture could be decoded" if failed else "")
        self._report.state("failed" if failed else "ended", unix, self._reason or end.reason, totals)

    def _leave(self, gone: Gone, unix: float) -> None:
        """``unix`` is when it left: its seconds add up to that, however late it is decided."""
        self.gone = gone
        if not self._live or self.ledger() is not None:
            return
        gaps, totals = self._account.end_live(gone.clock_s)
        self._report.gaps(gaps, gone.clock_s, unix)
        self._state = "failed" if gone.failed else "ended"
        self._report.state("failed" if gone.failed else "ended", unix, gone.failed or gone.reason, totals)

    def _decide(self, verdict: Verdict, now: float, unix: float) -> None:
        sample = verdict.sample
        if self._live:
            self._set_clock(now - sample.arrived + sample.time_s, unix)
        self._report.gaps(self._account.sample(verdict, stretched=self._stretched), now, unix)
        self._dirty = self._dirty or not verdict.dropped
        self._latency = (verdict.scored_at - sample.arrived, now - verdict.scored_at)
        changes, look = self._flagging.add(verdict)
        self._publish(changes, unix)
        if look is not None:
            self._look(look, now)
        self._lead.decided()  # last: a reader with nothing left to wait for may leave

    def _look(self, look: Look, now: float) -> None:
        """Ask the reader for a closer look; until it is answered nothing later of this stream is decided."""
        if self.results.over:
            return
        self._lead.ask(look)
        if look.from_s < look.to_s:
            self._look_until_s = now + (LIVE_LOOK_S if self._live else FILE_LOOK_S)
            self.results.look(look.number)

    def _set_clock(self, ago_s: float, unix: float) -> None:
        """When media second 0 was: by the sender's clock where it tells, else by the first sample's
        arrival."""
        sender_s = self._position.sender_s
        if sender_s is not None:
            self._report.wall = WallClock(sender_s, "sender")
            return
        # Packets may come late or in a burst, never early: the earliest epoch is the nearest to the truth.
        known = self._report.wall.epoch_s if self._report.wall.clock == "arrival" else None
        self._report.wall = WallClock(min(unix - ago_s, known or float("inf")), "arrival")

    def _pass_time(self, now: float, unix: float) -> None:
        """Nothing waits to be scored: report a gap that lasts, close what is over by now."""
        gaps = self._account.pass_time(now)
        self._report.gaps(gaps, now, unix)
        self._dirty = self._dirty or bool(gaps)  # what was reported must not be reported again after a crash
        if self._live and self._flagging.open_segments:
            # Pictures come out behind the packets by a reordering, or by a gap that is being caught up.
            sure_s = self._position.time_s - SURE_GAPS * self._max_gap_s
            self._publish(self._flagging.advance(sure_s), unix)

    def _publish(self, changes: Sequence[Change], unix: float) -> None:
        """Revisions, with the latency of the last sample that was decided."""
        self._account.published(sum(segment.rev == 1 for segment, _ in changes))
        self._report.segments(changes, self._latency, unix)

    def _progress(self, begin: Begin | None) -> Progress:
        item = begin.item if begin is not None else Item()
        return Progress(
            stream=self._stream.id,
            item="" if self._live else item.path,  # a live stream has one ledger, whatever it plays
            size=item.size,
            mtime=item.mtime,
            session=begin.session if begin is not None else "",
            last_scored_s=self._account.last_scored_s,
            ledger=self._account.snapshot(),
            segments=self._account.item_segments,
        )

    def status(self, now: float) -> dict[str, Any]:
        """The stream's row of the status snapshot."""
        info, position = (self._begin.info if self._begin else None), self._position
        skipped = f"{position.skipped} screened before" if position.skipped else ""
        account = self._account.status(now if self._live else position.time_s)
        drops = account["drops"]
        if position.dropped:  # besides those that samples told of
            drops["overload"] = drops.get("overload", 0) + position.dropped
        return {
            "number": self.number,
            "id": self._stream.id,
            "tenant": self._stream.tenant,
            "url": self._shown,
            "kind": self._kind,
            "state": self._state,
            "reason": self._reason or position.trouble or position.decoder or skipped,
            "plan": position.plan,
            "why": f"overloaded: a picture every {position.gap_s:.1f} s" if self._stretched else position.why,
            "gap_s": round(position.gap_s, 3),
            "max_gap_s": self._max_gap_s,
            "open_segments": self._flagging.open_segments,
            "shorter": self._flagging.shorter,
            "item": self._begin.item.path if self._begin else "",
            "position_s": round(position.time_s, 3),
            "duration_s": info.duration_s if info else None,
            "size": f"{info.width}x{info.height}" if info else "",
            "codec": info.codec if info else "",
            "fps": round(float(info.frame_rate), 3) if info and info.frame_rate else None,
            "gop_s": position.gop_s,
            "decoder": position.decoder,
            "damaged": position.damaged,
            "held_bytes": position.held_bytes,
            "looks_refused": position.refused,
            "audits_refused": position.unaudited,
            "reconnects": max(0, self._sessions - 1) if self._live else 0,
            **account,
        }

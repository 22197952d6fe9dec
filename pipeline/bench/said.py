"""What a run's own events say: seconds by cause in a window, each stream's account when the run ended, and
the segments that came to their end."""

import contextlib
import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

ADDS_UP_S = 0.1
"""Screened, late, dropped and lost seconds may differ from a stream's whole time by so much."""
COVERAGE, STREAM, SEGMENT = (f"framewarden.{kind}.v1" for kind in ("coverage", "stream", "segment"))


@dataclass(frozen=True, slots=True)
class Account:
    """Seconds of a stream from when it was added until the run ended."""

    duration_s: float
    screened_s: float
    late_s: float
    dropped_s: float
    lost_s: float

    @property
    def adds_up(self) -> bool:
        """Whether every second is accounted for."""
        sum_s = self.screened_s + self.late_s + self.dropped_s + self.lost_s
        return abs(sum_s - self.duration_s) <= ADDS_UP_S


@dataclass(frozen=True, slots=True)
class Ended:
    """A segment that ended by itself, in seconds of its film: where, and how uncertain that is."""

    start_s: float
    end_s: float
    start_uncertainty_s: float
    end_uncertainty_s: float


@dataclass(frozen=True, slots=True)
class Said:
    """``lost``: seconds of the coverage events given in the window, by cause. ``accounts`` by stream id."""

    lost: dict[str, float]
    accounts: dict[str, Account]
    ended: list[Ended]


def read(events: Path, since: float, until: float) -> Said:
    """Go through the output of ``run --json``, line by line; ``since`` and ``until`` are Unix times."""
    lost: Counter[str] = Counter()
    accounts: dict[str, Account] = {}
    ended: list[Ended] = []
    with events.open(encoding="utf-8") as lines:
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):  # a run that is killed ends in half a line
                event = json.loads(line)
                data = event["data"]
                if event["type"] == COVERAGE and since <= _unix(event["time"]) <= until:
                    lost[data["cause"]] += data["seconds"]
                elif event["type"] == SEGMENT and data["reason"] == "ended":
                    ended.append(Ended(**data["media"]))
                elif event["type"] == STREAM and data.get("duration_s") is not None:
                    accounts[data["stream"]["id"]] = Account(
                        **{name: data[name] for name in Account.__dataclass_fields__}
                    )
    return Said(dict(lost), accounts, ended)


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()

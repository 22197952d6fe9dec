"""What a run says about its outbox."""

from collections.abc import Iterable
from typing import Any

import structlog

from pipeline.outbox import Counts, Outbox, OutboxError

log = structlog.get_logger(__name__)


class OutboxWatch:
    """What the status says of the outbox: ``ok``, or why nothing more is accepted, and how full it is.

    ``counts`` are those of the last look."""

    def __init__(self, outbox: Outbox) -> None:
        self.counts = Counts(0, 0, 0, 0)
        self._outbox = outbox
        self._error = ""

    def look(self, errors: Iterable[str]) -> dict[str, Any]:
        """The outbox now; ``errors`` are those that the workers' recorders met and still meet."""
        error = next(filter(None, errors), "")
        try:
            self.counts = self._outbox.counts()
        except OutboxError as exc:
            error = error or str(exc)
        if error and error != self._error:
            log.error("the outbox accepts nothing; samples wait, nothing is lost", why=error)
        elif self._error and not error:
            log.info("the outbox accepts again")
        self._error = error
        return {
            "state": "blocked" if error else "ok",
            "error": error,
            "bytes": self.counts.bytes,
            "max_bytes": self._outbox.max_bytes,
        }

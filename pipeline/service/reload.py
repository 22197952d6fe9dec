"""When the config is to be read again, and what came of it."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from pipeline.config import Config
from pipeline.errors import ConfigError, ModelError
from pipeline.service.change import Change, difference

LOOK_S = 1.0


@dataclass(slots=True)
class Reloader:
    """The config file of a run. ``load`` reads it, ``check`` verifies the models that it names.

    A call of ``ask`` (SIGHUP) makes it due, and so does a changed file with ``reload: watch``, once it has
    been the same for a second."""

    path: Path
    load: Callable[[], Config]
    said: dict[str, Any] = field(default_factory=lambda: {"state": "as started", "time": None, "error": ""})
    _asked: threading.Event = field(default_factory=threading.Event)
    _read: tuple[int, ...] = ()
    _seen: tuple[int, ...] = ()
    _looked: float = 0.0

    def __post_init__(self) -> None:
        self._read = self._seen = self._print()

    def ask(self) -> None:
        """Read the file again; may be called from a signal handler."""
        self._asked.set()

    def due(self, now: float, *, watch: bool) -> bool:
        """Whether to read it now, at monotonic time ``now``."""
        if self._asked.is_set():
            self._asked.clear()
            return True
        if not watch or now - self._looked < LOOK_S:
            return False
        self._looked = now
        before, self._seen = self._seen, self._print()
        return self._seen == before != self._read

    def change(self, old: Config, check: Callable[[Config], object]) -> Change | None:
        """What the file asks for now; None, and the old config stays in force, when it is not valid."""
        self._read = self._seen = self._print()
        log = structlog.get_logger()
        new, error = self._load(check)
        if new is None:
            self.said = {"state": "refused", "time": time.time(), "error": error}
            log.error("config.refused", path=str(self.path), error=error, running="the old config")
            return None
        change = difference(old, new)
        self.said = {
            "state": "reloaded",
            "time": time.time(),
            "error": "",
            "restart_needed": list(change.restart_needed),
            **change.counts(),
        }
        log.info("config.reloaded", path=str(self.path), **change.counts())
        if change.restart_needed:
            log.warning("config.needs_restart", keys=list(change.restart_needed))
        return change

    def _load(self, check: Callable[[Config], object]) -> tuple[Config | None, str]:
        try:
            new = self.load()
            check(new)
        except (ConfigError, ModelError) as error:
            return None, str(error)
        return new, ""

    def _print(self) -> tuple[int, ...]:
        """What tells one state of the file from another; empty while it is not there."""
        try:
            stat = os.stat(self.path)
        except OSError:
            return ()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

"""Structured log lines on stderr, with every credential masked."""

import logging
import sys
import traceback
from types import TracebackType
from typing import Any, Literal, Self

import structlog

from pipeline.masking import mask_text

Format = Literal["auto", "json", "console"]


def configure(format: Format = "auto", level: str = "info") -> None:
    """Send log lines of ``level`` and above to stderr, one a line, and other libraries' from warning on.

    ``auto`` is ``console`` (coloured) on a terminal and ``json`` elsewhere. May be called again; stderr is
    looked up at each line, so that a live table may stand in for it."""
    terminal = sys.stderr.isatty()
    console = format == "console" or (format == "auto" and terminal)
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=terminal) if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
            structlog.processors.format_exc_info,  # as text, so that it is masked, too
            mask,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward()], force=True)
    logging.captureWarnings(capture=True)


def traceback_of(error: BaseException) -> str:
    """Where ``error`` arose, with every credential masked."""
    return mask_text("".join(traceback.format_exception(error)))


def crash(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    """What the interpreter prints of an error that nobody caught (``sys.excepthook``)."""
    sys.stderr.write(traceback_of(error))


class CrashReport:
    """Ends a process that fails with such a report and exit code 1; ``multiprocessing`` would mask
    nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and kind is not None and not isinstance(error, SystemExit):
            crash(kind, error, trace)
            raise SystemExit(1) from None


def mask(_: Any, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Every URL in a line without its credentials, also inside lists and mappings."""
    return {key: _masked(value) for key, value in line.items()}


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    if isinstance(value, BaseException):
        return mask_text(f"{type(value).__name__}: {value}")
    return value


class _Forward(logging.Handler):
    """What libraries log by the standard module, as lines of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(record.levelno, record.getMessage(), logger=record.name)

"""The two ways to use the flow: as a service on a config, or to screen inputs to their end."""

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from pipeline import inputs
from pipeline.backends import registry
from pipeline.config import Config, Stream
from pipeline.errors import SourceError
from pipeline.outbox import Outbox
from pipeline.service import plan
from pipeline.service.jobs import Job, Outcome
from pipeline.service.reload import Reloader
from pipeline.service.snapshot import Snapshot
from pipeline.service.state import OnEvent, close_left_open, failed_event, locked
from pipeline.service.supervisor import Supervisor

OnStatus = Callable[[dict[str, Any]], None]
OUTBOX = "outbox.sqlite"
FLUSH_S = 0.5
"""Redis gets at least this long to take what is left."""


def run_service(
    config: Config,
    *,
    for_s: float | None,
    exit_at_end: bool,
    on_event: OnEvent,
    on_status: OnStatus,
    stop: threading.Event,
    reloader: Reloader | None = None,
) -> Outcome:
    """Screen the config's streams until ``for_s`` seconds are over, all files have ended or ``stop`` is set;
    with ``reloader``, follow the config file.

    :raises ConfigError, ModelError: refuse to start; nothing has been opened."""
    from pipeline.service.delivery import Delivery, redis_for  # on use: ``screen`` needs no Redis

    manifests = plan.check_models(config)
    device, why = registry.choose_device(config.device, config.engine, [m.name for m in manifests.values()])
    gpus = plan.gpus(config, device)
    log = structlog.get_logger()
    with locked(config.state_dir), Outbox(config.state_dir / OUTBOX, **config.outbox_limits()) as outbox:
        close_left_open(outbox, None, on_event)
        now = time.monotonic()
        jobs = [
            Job(number, stream, plan.kind_of(stream)) for number, stream in enumerate(config.streams, start=1)
        ]
        for job in jobs:
            outbox.forget(job.stream.id)  # a live stream's seconds count from this start
        supervisor = Supervisor(
            config, outbox, device, jobs=jobs, one_by_one=False, on_event=on_event, gpus=gpus
        )
        bounds = plan.bounds(config, manifests, len(supervisor.hands), supervisor.each)
        log.info(
            "run.started",
            device=device,
            why=why,
            streams=len(config.streams),
            workers=len(supervisor.hands),
        )
        for line in bounds:
            log.info("run.bound", limit=line)
        with redis_for(config, stop) as settings, Delivery(outbox, settings) as delivery:
            snapshot = Snapshot(
                config,
                supervisor,
                delivery.publisher,
                device=(device, why),
                bounds=bounds,
                on_status=on_status,
                reloader=reloader,
            )
            until = None if for_s is None else now + for_s

            def ends() -> list[Job]:
                return [job for job in supervisor.roster.jobs.values() if job.stream.ends]

            def over() -> bool:
                delivery.check()
                return (until is not None and time.monotonic() >= until) or (
                    exit_at_end and all(job.over for job in ends())
                )

            def tick() -> None:
                if reloader is not None and not supervisor.stopping:
                    _follow(reloader, supervisor)
                snapshot.tick()

            try:
                supervisor.run(stop, until=over, tick=tick)
            finally:
                delivery.finish(max(FLUSH_S, config.shutdown_s - plan.kill_s(config)))
                snapshot.write("ended")
        return _outcome(supervisor, ends() if exit_at_end else [], stop, snapshot.last)


def _follow(reloader: Reloader, supervisor: Supervisor) -> None:
    """Read the config again when that is due, and do what it says; not while the outbox takes nothing, for
    each time events of the streams that leave would join those that wait."""
    if supervisor.error or not reloader.due(time.monotonic(), watch=supervisor.config.reload == "watch"):
        return
    change = reloader.change(supervisor.config, plan.check_models)
    if change is not None:
        supervisor.follow(change)


def screen_inputs(
    config: Config, *, on_event: OnEvent, on_status: OnStatus, stop: threading.Event
) -> Outcome:
    """Screen every stream of ``config`` once, to its end, on all cores; needs no Redis.

    An input is a file, a folder, a glob or a URL; folders and globs become one job a file.

    :raises ConfigError, ModelError: refuse to start; nothing has been opened."""
    manifests = plan.check_models(config)
    device, why = registry.choose_device(config.device, config.engine, [m.name for m in manifests.values()])
    gpus = plan.gpus(config, device)
    structlog.get_logger().info("screen.started", device=device, why=why)
    jobs, missing = _jobs(config)
    for stream, reason in missing:
        on_event(failed_event(config, stream, "file", reason))
    failed = [(stream.id, reason) for stream, reason in missing]
    if not jobs:
        return Outcome(stop.is_set(), 0, failed, {})
    config = config.model_copy(update={"streams": tuple(job.stream for job in jobs)})
    with (
        tempfile.TemporaryDirectory(prefix="framewarden-screen-") as folder,
        Outbox(Path(folder) / OUTBOX) as outbox,
    ):
        supervisor = Supervisor(
            config, outbox, device, jobs=jobs, one_by_one=True, on_event=on_event, gpus=gpus
        )
        bounds = plan.bounds(config, manifests, len(supervisor.hands), supervisor.each)
        snapshot = Snapshot(
            config, supervisor, None, device=(device, why), bounds=bounds, on_status=on_status
        )
        supervisor.run(stop, until=lambda: all(job.done for job in jobs), tick=snapshot.tick)
        snapshot.show("ended")
        outcome = _outcome(supervisor, jobs, stop, snapshot.last)
    outcome.failed[:0] = failed
    return outcome


def _jobs(config: Config) -> tuple[list[Job], list[tuple[Stream, str]]]:
    """One job a file or URL, and the inputs that there are not, with why."""
    streams: list[Stream] = []
    missing: list[tuple[Stream, str]] = []
    for stream in config.streams:
        if inputs.is_remote(stream.url):
            streams.append(stream)
            continue
        try:
            paths = inputs.expand(stream.url, config.reach())
        except SourceError as error:
            missing.append((stream, str(error)))
            continue
        many = inputs.is_many(stream.url)
        streams += [
            stream.model_copy(update={"id": str(path) if many else stream.id, "url": str(path)})
            for path in paths
        ]
    unique = {s.url if inputs.is_remote(s.url) else str(Path(s.url).resolve()): s for s in reversed(streams)}
    return [
        Job(number, stream, "file") for number, stream in enumerate(reversed(unique.values()), start=1)
    ], missing


def _outcome(
    supervisor: Supervisor, jobs: list[Job], stop: threading.Event, summary: dict[str, Any]
) -> Outcome:
    failed = [(job.stream.id, job.why_failed) for job in jobs if job.why_failed is not None]
    return Outcome(stop.is_set(), supervisor.roster.flagged, failed, summary)

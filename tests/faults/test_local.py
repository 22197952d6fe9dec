"""The guard of this folder: nothing is sent beyond this machine."""

import socket
from pathlib import Path

import pytest


@pytest.mark.parametrize("name", ["connect", "connect_ex"])
@pytest.mark.parametrize("host", ["192.0.2.1", "host.invalid", "0.0.0.0"])
def test_a_connection_to_another_machine_is_refused(name: str, host: str) -> None:
    """The socket is one for datagrams: connecting it sends nothing, even without the guard."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with pytest.raises(AssertionError, match=host):
            getattr(probe, name)((host, 9))
        with pytest.raises(OSError, match="not connected"):
            probe.getpeername()


def test_a_connection_on_this_machine_is_made(tmp_path: Path) -> None:
    for address in ("127.0.0.1", "127.3.2.1"):
        with (
            socket.create_server((address, 0)) as server,
            socket.create_connection(server.getsockname()) as client,
        ):
            assert client.getpeername() == server.getsockname()
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "door"))
        server.listen()
        client.connect(str(tmp_path / "door"))

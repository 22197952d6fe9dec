"""Faults stay on this machine: a test process that connects anywhere else fails."""

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import pytest


def check_local(family: int, address: Any) -> None:
    """:raises AssertionError: the address is not one of this machine alone."""
    if family == socket.AF_UNIX:
        return
    try:
        local = ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        local = False  # a name: where it leads is not known
    assert local, f"tests/faults may send to 127.0.0.0/8, ::1 and Unix sockets only, not to {address}"


@pytest.fixture(scope="package", autouse=True)
def only_local() -> Iterator[None]:
    """Of the whole package, so that it holds for the scenes, too. The service is a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            whole = getattr(socket.socket, name)

            def guarded(self: socket.socket, address: Any, whole: Any = whole) -> Any:
                check_local(self.family, address)
                return whole(self, address)

            patch.setattr(socket.socket, name, guarded)
        yield

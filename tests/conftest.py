"""Shared by all tests: the servers and clips of ``tests/fixtures``, and what a skipped GPU means."""

import os

import pytest

pytest_plugins = [
    "tests.fixtures.media",
    "tests.fixtures.pools",
    "tests.fixtures.rtsp",
    "tests.fixtures.rtmp",
    "tests.fixtures.http",
    "tests.fixtures.redis",
    "tests.fixtures.service",
    "tests.fixtures.gstreamer",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a GPU its tests are skipped, loudly; with ``REQUIRE_GPU=1`` they run, and fail."""
    if os.environ.get("REQUIRE_GPU") == "1":
        return
    from pipeline.backends.registry import gpu_pieces

    missing = [piece for piece in gpu_pieces() if not piece.available]
    if not missing:
        return
    why = f"no usable GPU ({missing[0].name}: {missing[0].reason}); REQUIRE_GPU=1 makes this a failure"
    for item in items:
        if item.get_closest_marker("needs_gpu"):
            item.add_marker(pytest.mark.skip(reason=why))

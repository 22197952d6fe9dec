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

LONG = (
    "tests/service/test_run.py",
    "tests/test_bench.py",
    "tests/service/test_lifecycle.py",
    "tests/fuzz/test_fuzz.py",
    "tests/faults/test_delivery.py",
    "tests/service/test_screen.py",
    "tests/service/test_bad_input.py",
    "tests/contract/test_scores_agree.py",
    "tests/gpu/test_check.py",
    "tests/faults/test_sources.py",
    "tests/faults/test_soak.py",
    "tests/service/test_reload.py",
    "tests/service/test_redis_faults.py",
    "tests/service/test_swap.py",
)
"""The files that take longest, in that order. They come first: of two workers that take a file at a time,
none is left alone with a long one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first. Without a GPU its tests are skipped, loudly; with ``REQUIRE_GPU=1`` they run, and
    fail."""
    places = {file: place for place, file in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(LONG)))
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

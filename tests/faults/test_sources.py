"""What sources and the way to them can do to a running service: fault by invariant, each a cell of its own.

One service carries all faults at once: what is green among all of them is green for each. ``make faults``
sets ``FAULTS_FULL``: 38 streams are lost together, for a minute."""

from collections.abc import Callable, Iterator

import pytest

from tests.faults.cells import INVARIANTS, full, judge, note
from tests.faults.scene import Scene, play
from tests.faults.sources import SOURCE_FAULTS
from tests.fixtures.redis import RedisServer

MANY, FAULT_S = (38, 60.0) if full() else (12, 7.0)
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The service before, among and after the faults."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "redis").mkdir()
    server = RedisServer(folder / "redis", {})
    server.start()
    try:
        yield play(folder, server, many=MANY, fault_s=FAULT_S)
    finally:
        server.kill()


@pytest.mark.parametrize("fault", SOURCE_FAULTS)
@pytest.mark.parametrize("invariant", INVARIANTS)
def test_a_source_that(
    fault: str, invariant: str, scene: Scene, record_property: Callable[[str, object], None]
) -> None:
    note(record_property, fault, invariant, lambda: judge(scene, fault, invariant))

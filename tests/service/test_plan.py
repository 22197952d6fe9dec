"""The bounds that a run prints at its start."""

import pytest

from pipeline import engines
from pipeline.config import Config
from pipeline.service import plan


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Those of two workers on eight cores with ten streams each, by what they bound."""
    monkeypatch.setattr(plan, "cores", lambda: 8)
    config = Config.model_validate(
        {
            "streams": [{"id": "cam", "url": "rtsp://127.0.0.1/x"}],
            "batch": {"max_size": 16},
            "outbox": {"max_bytes": 2_000_000_000, "keep_s": 7200},
        }
    )
    manifests = {"open-nsfw": engines.load_manifest("open-nsfw")}
    found = plan.bounds(config, manifests, 2, 10)
    return {what: rest for what, _, rest in (line.partition(": ") for line in found)}


def test_workers_and_the_pool_of_each_model_are_bounded(lines: dict[str, str]) -> None:
    assert lines["workers"] == "2 of 4 cores"
    assert lines["frame pool open-nsfw"] == "42 slots x 602 kB = 25 MB a worker", "224 x 224 x 3 floats each"


def test_what_streams_hold_of_packets_and_of_decoders_is_bounded(lines: dict[str, str]) -> None:
    packets, decoders = lines["packets held"], lines["decoders"]
    assert packets.startswith("at most 34 MB by the sampler and 34 MB by the ring of a stream, 10 x 67 MB")
    assert decoders.startswith("at most 29 x 30 MB = 870 MB a worker at 1080p: of each of 10 streams one")
    assert " 4 for keyframes ahead, 5 for keyframes by themselves" in decoders


def test_queues_and_the_disk_are_bounded(lines: dict[str, str]) -> None:
    assert lines["decoding at once"].startswith("5 a worker, keyframes of files held decoded: 5; ")
    assert lines["decoding at once"].endswith(f"waiting for the disk: {plan.RECORDS}")
    assert lines["outbox"] == "at most 2000 MB on disk; delivered events for at most 2 h"
    assert set(lines) == {
        "workers",
        "frame pool open-nsfw",
        "packets held",
        "decoders",
        "decoding at once",
        "outbox",
    }

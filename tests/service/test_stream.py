"""One stream on the inference thread."""

import json
import time
from datetime import datetime

from pipeline.config import Config
from pipeline.service.lead import Lead
from pipeline.service.messages import Gone
from pipeline.service.orders import Add
from pipeline.service.session import Position
from pipeline.service.stream import StreamScreen


def test_a_streams_end_is_told_with_its_own_time_however_late_it_is_decided() -> None:
    """Its seconds are counted up to there, so else they would not add up."""
    config = Config.model_validate({"streams": [{"id": "cam", "url": "rtsp://127.0.0.1/cam"}]})
    now, unix = time.monotonic(), time.time()
    order = Add(1, config.streams[0], "live", now - 60.0, 0.0)
    screen = StreamScreen(order, config, {}, Position(2.0), Lead(None))
    screen.results.push(Gone(now - 5.0, "shutdown"))
    screen.turn(now, unix)
    *_, ended = [json.loads(event.body) for event in screen.collect(now).events]
    assert ended["data"]["state"] == "ended"
    assert abs(datetime.fromisoformat(ended["time"]).timestamp() - (unix - 5.0)) < 0.01
    assert abs(ended["data"]["duration_s"] - 55.0) < 0.01

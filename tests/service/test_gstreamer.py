"""An extra run, where GStreamer is installed: its RTSP server in, a real Redis out."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.gstreamer import serve
from tests.fixtures.redis import RedisServer
from tests.fixtures.service import Command, film, segments


@pytest.mark.needs_gstreamer
def test_three_streams_of_gstreamers_server_are_flagged_into_redis(
    framewarden: Callable[..., Command], gstreamer_films: Path, redis_server: RedisServer, tmp_path: Path
) -> None:
    spans = {"a": (2.2, 6.0), "b": (4.1, 7.7), "c": (1.0, 3.6)}
    for name, span in spans.items():
        # Several slices a picture: before each slice of a keyframe this server repeats the parameter sets,
        # which libavformat takes for the start of another picture.
        film(gstreamer_films / f"{name}.mp4", 14, span, gop_s=1.0, options={"x264-params": "slices=4"})
    server, port = serve(gstreamer_films)
    try:
        streams = [{"id": name, "url": f"rtsp://127.0.0.1:{port}/{name}.mp4"} for name in spans]
        settings = tmp_path / "run.yaml"
        settings.write_text(
            json.dumps({"state_dir": "state", "redis": {"url": redis_server.url}, "streams": streams})
        )
        command = framewarden("run", settings, "--json")
        command.wait_for(lambda c: {s["stream"]["id"] for s in segments(c.events)} == set(spans))
        assert command.terminate() == 0, command.stderr
        causes = [event["data"]["cause"] for event in command.events if ".coverage." in event["type"]]
        assert "corrupt" not in causes
    finally:
        server.kill()
        server.wait()
    with redis_server.client() as client:
        sent = [json.loads(fields["event"]) for _, fields in client.xrange("framewarden:segments")]
    for name, (start_s, end_s) in spans.items():
        first = next(s for s in segments(sent) if s["stream"]["id"] == name)
        length = first["media"]["end_s"] - first["media"]["start_s"]
        assert length == pytest.approx(end_s - start_s, abs=0.5)
        assert first["stream"]["kind"] == "live"

"""The config's ``limits`` and ``tls`` on their way through supervisor and worker to the source."""

from collections.abc import Callable
from pathlib import Path

from tests.fixtures.http import HttpServer
from tests.fixtures.media import Clips
from tests.fixtures.relay import Certificate
from tests.fixtures.service import Command


def test_limits_and_a_streams_own_authority_reach_the_source(
    framewarden: Callable[..., Command],
    http_servers: Callable[..., HttpServer],
    certificate: Certificate,
    clips: Clips,
    tmp_path: Path,
) -> None:
    server = http_servers(tls=True)
    (server.folder / "a.mp4").write_bytes(clips(width=96, height=64).read_bytes())
    config = tmp_path / "fw.yaml"
    config.write_text(
        f"workers: 1\nlimits: {{picture_pixels: 10000}}\nstreams:\n"
        f"  - {{id: large, url: {clips(width=128, height=96)}}}\n"
        f"  - {{id: known, url: '{server.url('a.mp4')}', tls: {{ca: {certificate.certificate}}}}}\n"
        f"  - {{id: any, url: '{server.url('a.mp4')}', tls: {{verify: false}}}}\n"
        f"  - {{id: unknown, url: '{server.url('a.mp4')}'}}\n"
    )
    command = framewarden("run", config, "--for", "30", "--json")

    def ends(now: Command) -> dict[str, tuple[str, str]]:
        """State and reason by stream."""
        data = [event["data"] for event in now.events if event["type"] == "framewarden.stream.v1"]
        return {one["stream"]["id"]: (one["state"], one["reason"]) for one in data}

    command.wait_for(lambda now: len(ends(now)) == 4)
    assert command.terminate() == 0
    found = ends(command)
    assert found["known"] == found["any"] == ("ended", "end_of_stream")
    assert {found["large"][0], found["unknown"][0]} == {"failed"}
    assert "limits.picture_pixels allows 10000" in found["large"][1]
    assert "TLS failed" in found["unknown"][1]

"""A run whose Redis speaks TLS with a certificate of an authority of one's own."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.fixtures.redis import RedisServer, until
from tests.fixtures.service import Command, film
from tests.fixtures.tls import Authority, terminated

Start = Callable[..., Command]


def test_a_run_trusts_the_authority_that_redis_tls_ca_names_and_no_other(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    """The file is named as seen from the config's folder."""
    film(tmp_path / "one.mp4", 9, (0.5, 3.5), size=(320, 180), gop_s=0.5)
    own = Authority(tmp_path)
    with terminated(redis_server.port, own.context()) as end, redis_server.client() as client:

        def run(name: str, *arguments: str, **tls: str) -> Command:
            settings = tmp_path / f"{name}.yaml"
            redis = {"url": f"rediss://127.0.0.1:{end.port}/0", "tls": tls}
            streams = [{"id": "cam", "url": "one.mp4"}]
            settings.write_text(json.dumps({"state_dir": name, "redis": redis, "streams": streams}))
            return framewarden("run", settings, "--json", *arguments)

        refused = run("system")
        until(lambda: "tls: " in refused.stderr, 60, lambda: refused.stderr)
        assert "check redis.tls.ca" in refused.stderr
        assert refused.terminate() == 0, refused.stderr
        assert client.keys("*") == []
        trusted = run("own", "--exit-at-end", ca=own.ca.name)
        assert trusted.end() == 0, trusted.stderr
        keys = ("framewarden:segments", "framewarden:health")
        found = {fields["id"] for key in keys for _, fields in client.xrange(key)}
        assert found == {event["id"] for event in trusted.events}
        assert client.xlen(keys[0]) >= 2

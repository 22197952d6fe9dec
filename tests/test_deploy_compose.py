"""``deploy/compose.yaml``, against the config's own schema and a real server."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.backends.redis_connect import RedisSettings
from pipeline.backends.sink_redis import RedisSink
from tests.fixtures.deploy import (
    CONFIG,
    DEPLOY,
    ROOT,
    STATE,
    example,
    read,
)
from tests.fixtures.redis import RedisFactory

VARIABLE = re.compile(r"\$\{(\w+)")


def compose(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(read(name))
    return found


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Where in the container → what; a variable's fallback stands for it."""
    found = {}
    for text in service["volumes"]:
        source, target = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text).removesuffix(":ro").split(":")
        found[target] = source
    return found


def seconds(text: str) -> int:
    match = re.fullmatch(r"(\d+)s", text)
    assert match, text
    return int(match[1])


def test_every_path_that_compose_names_is_there() -> None:
    for name in ("compose.yaml", "compose.gpu.yaml"):
        for service in compose(name)["services"].values():
            build = service.get("build", {})
            if "dockerfile" in build:
                assert (DEPLOY / build.get("context", "..") / build["dockerfile"]).is_file()
    assert (DEPLOY / compose("compose.yaml")["services"]["framewarden"]["build"]["context"]).samefile(ROOT)
    for target, source in mounts(compose("compose.yaml")["services"]["framewarden"]).items():
        assert source in compose("compose.yaml")["volumes"] or (DEPLOY / source).exists(), target


def test_compose_gives_the_config_all_that_it_asks_for() -> None:
    service, config = compose("compose.yaml")["services"]["framewarden"], example(REDIS_PASSWORD="abc")
    mounted = mounts(service)
    assert CONFIG in mounted
    assert STATE in mounted
    assert all(any(Path(stream.url).is_relative_to(at) for at in mounted) for stream in config.streams)
    given = set(service["environment"]) | {"FRAMEWARDEN_NODE"}
    lines = [line for line in read("config.yaml").splitlines() if not line.lstrip().startswith("#")]
    assert set(VARIABLE.findall("\n".join(lines))) <= given
    assert config.redis.url is not None
    assert config.redis.url.rpartition("@")[2] == "redis:6379/0"
    assert "redis" in compose("compose.yaml")["services"]


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_what_compose_tells_the_config_is_allowed_there(name: str) -> None:
    told = compose(name)["services"]["framewarden"]["environment"]
    env = {key: re.sub(r"\$\{.*\}", "abc", value) for key, value in told.items()}
    assert example(**env).device == env["FRAMEWARDEN_DEVICE"]


def test_compose_starts_the_service_after_redis_and_gives_it_time_to_end() -> None:
    service = compose("compose.yaml")["services"]["framewarden"]
    assert service["depends_on"]["redis"]["condition"] == "service_healthy"
    assert seconds(service["stop_grace_period"]) > example().shutdown_s
    assert service["init"] is True, "somebody has to collect the workers that were killed"


def test_compose_takes_every_right_away_and_opens_no_port() -> None:
    services = compose("compose.yaml")["services"]
    assert services["framewarden"]["read_only"] is True
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "ports" not in service
        assert "privileged" not in service
        assert re.search(r":[\w.-]*\d", service["image"]) or "build" in service


def test_a_server_started_like_compose_s_redis_passes_the_check_that_the_config_asks_for(
    redis_factory: RedisFactory,
) -> None:
    """``on_unsafe: refuse`` with these very options, on a real server; and not without them."""
    words = compose("compose.yaml")["services"]["redis"]["command"]
    assert words[0] == "redis-server"
    options = dict(zip((word.removeprefix("--") for word in words[1::2]), words[2::2], strict=True))
    assert "REDIS_PASSWORD" in options.pop("requirepass")
    assert options["appendonly"] == "yes"
    on_unsafe = example().redis.on_unsafe
    assert on_unsafe == "refuse"
    server = redis_factory(**{name.replace("-", "_"): value for name, value in options.items()})
    sink = RedisSink(RedisSettings(server.url, on_unsafe=on_unsafe))
    try:
        assert sink.connect() == []
    finally:
        sink.close()


def test_the_gpu_file_changes_the_service_that_is_there_and_reserves_cards_for_video() -> None:
    over = compose("compose.gpu.yaml")["services"]
    assert set(over) <= set(compose("compose.yaml")["services"])
    assert over["framewarden"]["build"]["dockerfile"] == "deploy/Dockerfile.gpu"
    [cards] = over["framewarden"]["deploy"]["resources"]["reservations"]["devices"]
    assert cards["driver"] == "nvidia"
    assert {"gpu", "video", "compute"} <= set(cards["capabilities"])

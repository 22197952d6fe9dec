"""The running service on a Redis of several servers, of which one is lost."""

from pathlib import Path

from tests.faults.redis_scene import RedisScene, Stage, perform
from tests.fixtures.proxy import proxied
from tests.fixtures.redis import RedisFactory, until
from tests.fixtures.sentinel import watched

SENTINEL, CLUSTER = "Redis: a Sentinel failover", "Redis: a killed node of a cluster"
KEY = "framewarden:segments"


def sentinel(folder: Path, factory: RedisFactory) -> RedisScene:
    """The master dies with writes that it had acknowledged and its replica never got."""
    with watched(factory) as pair:

        def fail_over(stage: Stage) -> int:
            pair.follow()  # the sentinel has led the replica past the proxy by now
            pair.between.black_hole = True
            with pair.master.client() as client:
                until(lambda: int(client.xlen(KEY)) > int(pair.follower.xlen(KEY)) + 2, 30)
                lost = int(client.xlen(KEY)) - int(pair.follower.xlen(KEY))
            so_far = len(stage.service.command.errors)
            pair.fail_over()
            until(lambda: stage.logged("redis is down", so_far), 30)
            return lost

        return perform(folder, pair.url, pair.master, pair.between, {SENTINEL: fail_over})


def cluster(folder: Path, factory: RedisFactory) -> RedisScene:
    """A node of a cluster is killed and started again."""
    node = factory(cluster_enabled="yes")
    with node.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        until(lambda: client.cluster("info")["cluster_state"] == "ok")

    def kill(stage: Stage) -> int:
        node.kill()
        struck = stage.down("refused", "lost", "cluster_down")
        node.start()
        return struck

    with proxied(node.port) as unused:
        return perform(folder, f"redis+cluster://127.0.0.1:{node.port}", node, unused, {CLUSTER: kill})

"""The running service on a Redis of several servers, of which one is lost."""

from pathlib import Path

from tests.faults.redis_scene import RedisScene, Stage, perform
from tests.fixtures.proxy import proxied
from tests.fixtures.redis import RedisFactory, until

SENTINEL, CLUSTER = "Redis: a Sentinel failover", "Redis: a killed node of a cluster"
KEY = "framewarden:segments"


def sentinel(folder: Path, factory: RedisFactory) -> RedisScene:
    """The master dies with writes that it had acknowledged and its replica never got."""
    master, replica = factory(), factory(repl_diskless_sync_delay="0")
    with proxied(master.port) as between, replica.client() as follower:
        follower.replicaof("127.0.0.1", between.port)
        until(lambda: follower.info("replication")["master_link_status"] == "up")
        rules = (
            f"monitor main 127.0.0.1 {master.port} 1",
            "down-after-milliseconds main 400",
            "failover-timeout main 5000",
        )
        watching = factory(sentinel="\n".join(rules))
        with watching.client() as watcher:
            until(lambda: len(watcher.sentinel_slaves("main")) == 1)

            def fail_over(stage: Stage) -> int:
                # The sentinel has led the replica past the proxy by now.
                follower.replicaof("127.0.0.1", between.port)
                until(lambda: follower.info("replication")["master_link_status"] == "up")
                between.black_hole = True
                with master.client() as client:
                    until(lambda: int(client.xlen(KEY)) > int(follower.xlen(KEY)) + 2, 30)
                    lost = int(client.xlen(KEY)) - int(follower.xlen(KEY))
                master.kill()
                until(lambda: watcher.sentinel_get_master_addr_by_name("main")[1] == replica.port, 40)
                return lost

            url = f"redis+sentinel://127.0.0.1:{watching.port}/main/0"
            return perform(folder, url, master, between, {SENTINEL: fail_over})


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

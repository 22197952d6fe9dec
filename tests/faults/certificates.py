"""The running service whose Redis shows a certificate for a while that is not right."""

from pathlib import Path
from ssl import SSLContext

from tests.faults.redis_scene import Fault, RedisScene, Stage, perform
from tests.fixtures.proxy import proxied
from tests.fixtures.redis import RedisFactory
from tests.fixtures.tls import HOUR, Authority, terminated

UNTRUSTED = "Redis: a certificate of another authority"
MISNAMED = "Redis: a certificate for another name"
EXPIRED = "Redis: an expired certificate"
CERTIFICATES = (UNTRUSTED, MISNAMED, EXPIRED)


def certificates(folder: Path, factory: RedisFactory) -> RedisScene:
    """One after the other, each with a cut connection, and the right one again when it was refused."""
    server = factory(requirepass="kept")
    own, other = Authority(folder), Authority(folder, "somebody else")
    right = own.context()
    wrong = {
        UNTRUSTED: other.context(),
        MISNAMED: own.context("redis.example"),
        EXPIRED: own.context(valid=(-2 * HOUR, -HOUR)),
    }
    with terminated(server.port, right) as end, proxied(server.port) as unused:

        def shown(context: SSLContext) -> Fault:
            def strike(stage: Stage) -> int:
                before = end.refused
                end.context = context
                end.cut()
                stage.down("tls")
                end.context = right
                return end.refused - before

            return strike

        url = server.url_at(end.port).replace("redis:", "rediss:")
        faults = {name: shown(context) for name, context in wrong.items()}
        return perform(folder, url, server, unused, faults, ca=own.ca)

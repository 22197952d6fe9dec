"""Reads flagged segments with a consumer group: python samples/consume.py [redis://host:port/0]"""

import json
import sys
from pathlib import Path
from typing import Any

import redis

KEY, GROUP, ME = "framewarden:segments", "review", "sample-consumer"
url = sys.argv[1] if len(sys.argv) > 1 else json.loads(Path("state/redis.json").read_text())["url"]
server = redis.Redis.from_url(url, decode_responses=True)
seen: set[str] = set()
after = "0"  # first what this consumer was given before and never acknowledged, then (">") what is new
while True:
    answer: Any = server.xreadgroup(GROUP, ME, {KEY: after}, count=100, block=2000)
    for _, entries in answer or []:
        after = ">" if not entries else after
        for entry, fields in entries:
            if fields and fields["id"] not in seen:  # delivery is at least once: drop repeats
                data = json.loads(fields["event"])["data"]
                print(
                    fields["stream"],
                    *(data[key] for key in ("category", "state", "media", "score")),
                    flush=True,
                )
                seen.add(fields["id"])
            server.xack(KEY, GROUP, entry)

"""The consumer kit: reads framewarden's events from Redis, safely and each once.

    with Consumer("redis://127.0.0.1:6379/0", group="review", name="desk-1") as consumer:
        for delivery in consumer.deliveries():
            store(delivery.event)               # upsert by (segment_id, rev); the highest rev is the truth
            consumer.ack(delivery)              # only when it is durably yours

A consumer in a group first gets again what it was given and never acknowledged, then what consumers that
fell silent left behind, then what is new. ``read`` only looks, and acknowledges nothing. Redis may hold an
event twice after a lost reply: both drop repeats by (``segment_id``, ``rev``), other events by their id,
over the last 100,000.
"""

from pipeline.backends.client_redis import Consumer, Delivery
from pipeline.backends.read_redis import read
from pipeline.events import Event

__all__ = ["Consumer", "Delivery", "Event", "read"]

"""Carries out what the sampler orders: packets to the pictures that are screened."""

from collections import deque
from collections.abc import Iterator

from pipeline.errors import DecodeError
from pipeline.flow.decode import Decoder, Picture
from pipeline.flow.sample import Order, Sampler
from pipeline.flow.source import Packet


def pictures(
    packet: Packet | None, sampler: Sampler, decoder: Decoder, *, last: bool = False
) -> Iterator[Picture]:
    """Carry out what the sampler orders for ``packet``; give the pictures to be screened, in time order.

    A picture is valid until the next one is asked for; whoever stores it should let go of it then (a 1080p
    surface is 3 MB).

    :raises DecodeError: after all orders of this packet, if one of them failed; the stream goes on."""
    orders = sampler.take(packet, last=last)
    return _carried_out(deque(orders), sampler, decoder) if orders else iter(())


def _carried_out(orders: deque[Order], sampler: Sampler, decoder: Decoder) -> Iterator[Picture]:
    failure: DecodeError | None = None
    while orders:
        order = orders.popleft()
        try:
            yield from _carry_out(order, sampler, decoder)
        except DecodeError as error:
            failure = failure or error
            sampler.damaged(order)
        if not orders:
            orders.extend(sampler.again())
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # it refers to this frame: the packet would be held until a garbage collection


def _carry_out(order: Order, sampler: Sampler, decoder: Decoder) -> Iterator[Picture]:
    if order.kind == "reset":
        decoder.reset()
    elif order.packet is None:
        yield from (picture for picture in decoder.flush() if sampler.wants(picture.time_s))
    elif order.kind == "feed":
        ready = decoder.decode(order.packet, wanted=order.wanted)
        yield from (picture for picture in ready if sampler.wants(picture.time_s))
    elif sampler.is_new(order.packet.time_s):
        picture = decoder.still(order.packet)
        if picture is None:
            sampler.no_picture()
        else:
            sampler.kept(picture.time_s)
            yield picture

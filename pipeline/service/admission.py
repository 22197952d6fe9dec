"""Who may decode now, on what, and a mark while they do."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pipeline.backends import registry
from pipeline.backends.registry import Device
from pipeline.errors import SourceUnsupported
from pipeline.flow.decode import Decoder, Picture
from pipeline.flow.source import Packet, StreamInfo
from pipeline.service.marks import Marks


class Turns:
    """No more decoders at work than cores: the others wait their turn instead of sharing every core's cache.

    Keyframes that are decoded alone and packets of a sequence have turns of their own: a sequence brings
    dozens of short calls a second, and if each waited behind keyframes its stream would fall ever further
    behind. Every decode call is marked with its stream, so that a crash can be put down to it."""

    def __init__(self, at_once: int, marks: Marks) -> None:
        self._alone = threading.Semaphore(at_once)
        self._in_sequence = threading.Semaphore(at_once)
        self._marks = marks

    @contextmanager
    def of(self, number: int, *, alone: bool = False) -> Iterator[None]:
        """Stream ``number``'s turn; ``alone``: for one keyframe by itself."""
        with self._alone if alone else self._in_sequence, self._marks.decoding(number):
            yield


Open = Callable[[StreamInfo, Device], Decoder]
T = TypeVar("T")


def _open(info: StreamInfo, device: Device) -> Decoder:
    return registry.open_decoder(info, device=device)


class Admission:
    """The decoders of one stream.

    With ``instead``, what the GPU does not decode is decoded in software, and ``instead`` hears why; without,
    it is refused."""

    def __init__(
        self,
        device: Device,
        turns: Turns,
        number: int,
        *,
        instead: Callable[[str], None] | None = None,
        open_decoder: Open = _open,
    ) -> None:
        self._device = device
        self._turns = turns
        self._number = number
        self._instead = instead if device == "gpu" else None
        self._open = open_decoder

    @contextmanager
    def decoder(self, info: StreamInfo) -> Iterator["AdmittedDecoder"]:
        """The decoder of a session, closed at its end.

        :raises SourceUnsupported: there is none for its codec."""

        def fall_back(why: SourceUnsupported) -> Decoder:
            if self._instead is None:
                raise why
            self._instead(f"decoded in software: {why}")
            return self._open(info, "cpu")

        with self._turns.of(self._number):
            try:
                first = self._open(info, self._device)
            except SourceUnsupported as why:
                first = fall_back(why)
        decoder = AdmittedDecoder(first, self._turns, self._number, fall_back)
        try:
            yield decoder
        finally:
            decoder.close()


class AdmittedDecoder:
    """A ``Decoder`` that takes its turn for each packet, and in whose place another goes on when it meets a
    sequence that it cannot decode: ``fall_back`` gives that one, or raises."""

    def __init__(
        self,
        decoder: Decoder,
        turns: Turns,
        number: int,
        fall_back: Callable[[SourceUnsupported], Decoder],
    ) -> None:
        self._decoder = decoder
        self._turns = turns
        self._number = number
        self._fall_back = fall_back
        self._damaged_before = 0

    @property
    def damaged(self) -> int:
        """Pictures that were not given because they were damaged."""
        return self._damaged_before + self._decoder.damaged

    def still(self, packet: Packet) -> Picture | None:
        """See ``Decoder.still``."""
        return self._in_turn(lambda decoder: decoder.still(packet), alone=True)

    def decode(self, packet: Packet, *, wanted: bool = True) -> Iterable[Picture]:
        """See ``Decoder.decode``."""
        return self._in_turn(lambda decoder: decoder.decode(packet, wanted=wanted))

    def flush(self) -> Iterable[Picture]:
        """See ``Decoder.flush``."""
        return self._in_turn(lambda decoder: decoder.flush())

    def reset(self) -> None:
        """See ``Decoder.reset``."""
        self._decoder.reset()

    def close(self) -> None:
        """See ``Decoder.close``."""
        self._decoder.close()

    def _in_turn(self, work: Callable[[Decoder], T], *, alone: bool = False) -> T:
        with self._turns.of(self._number, alone=alone):
            try:
                return work(self._decoder)
            except SourceUnsupported as why:
                other, self._damaged_before = self._fall_back(why), self.damaged
                self._decoder.close()
                self._decoder = other
                return work(other)

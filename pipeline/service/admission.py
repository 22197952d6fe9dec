"""Who may decode now, and a mark while they do."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pipeline.backends.registry import Device, open_decoder
from pipeline.flow.decode import Decoder, Picture
from pipeline.flow.source import Packet, StreamInfo
from pipeline.service.marks import Marks


class Turns:
    """No more decoders at work than cores: the others wait their turn instead of sharing every core's cache.

    Every decode call is marked with its stream, so that a crash can be put down to it."""

    def __init__(self, at_once: int, marks: Marks) -> None:
        self._turn = threading.Semaphore(at_once)
        self._marks = marks

    @contextmanager
    def of(self, number: int) -> Iterator[None]:
        """Stream ``number``'s turn."""
        with self._turn, self._marks.decoding(number):
            yield


class Admission:
    """The decoders of one stream."""

    def __init__(self, device: Device, turns: Turns, number: int) -> None:
        self._device = device
        self._turns = turns
        self._number = number

    @contextmanager
    def decoder(self, info: StreamInfo) -> Iterator["AdmittedDecoder"]:
        """The decoder of a session, closed at its end.

        :raises SourceUnsupported: there is none for its codec."""
        with self._turns.of(self._number):
            decoder = open_decoder(info, device=self._device)
        try:
            yield AdmittedDecoder(decoder, self._turns, self._number)
        finally:
            decoder.close()


class AdmittedDecoder:
    """A ``Decoder`` that takes its turn for each packet."""

    def __init__(self, decoder: Decoder, turns: Turns, number: int) -> None:
        self._decoder = decoder
        self._turns = turns
        self._number = number

    @property
    def damaged(self) -> int:
        """Pictures that were not given because they were damaged."""
        return self._decoder.damaged

    def still(self, packet: Packet) -> Picture | None:
        """See ``Decoder.still``."""
        with self._turns.of(self._number):
            return self._decoder.still(packet)

    def decode(self, packet: Packet, *, wanted: bool = True) -> Iterable[Picture]:
        """See ``Decoder.decode``."""
        with self._turns.of(self._number):
            return self._decoder.decode(packet, wanted=wanted)

    def flush(self) -> Iterable[Picture]:
        """See ``Decoder.flush``."""
        with self._turns.of(self._number):
            return self._decoder.flush()

    def reset(self) -> None:
        """See ``Decoder.reset``."""
        self._decoder.reset()

    def close(self) -> None:
        """See ``Decoder.close``."""
        self._decoder.close()

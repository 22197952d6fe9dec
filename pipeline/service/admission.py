"""Who may decode now."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pipeline.backends.registry import Device, open_decoder
from pipeline.flow.decode import Decoder, Picture
from pipeline.flow.source import Packet, StreamInfo


class Admission:
    """No more decoders at work than cores: the others wait their turn instead of sharing every core's
    cache."""

    def __init__(self, device: Device, at_once: int) -> None:
        self._device = device
        self._turn = threading.Semaphore(at_once)

    @contextmanager
    def decoder(self, info: StreamInfo) -> Iterator["AdmittedDecoder"]:
        """The decoder of a session, closed at its end.

        :raises SourceUnsupported: there is none for its codec."""
        decoder = open_decoder(info, device=self._device)
        try:
            yield AdmittedDecoder(decoder, self._turn)
        finally:
            decoder.close()


class AdmittedDecoder:
    """A ``Decoder`` that takes its turn for each packet."""

    def __init__(self, decoder: Decoder, turn: threading.Semaphore) -> None:
        self._decoder = decoder
        self._turn = turn

    @property
    def damaged(self) -> int:
        """Pictures that were not given because they were damaged."""
        return self._decoder.damaged

    def still(self, packet: Packet) -> Picture | None:
        """See ``Decoder.still``."""
        with self._turn:
            return self._decoder.still(packet)

    def decode(self, packet: Packet, *, wanted: bool = True) -> Iterable[Picture]:
        """See ``Decoder.decode``."""
        with self._turn:
            return self._decoder.decode(packet, wanted=wanted)

    def flush(self) -> Iterable[Picture]:
        """See ``Decoder.flush``."""
        with self._turn:
            return self._decoder.flush()

    def reset(self) -> None:
        """See ``Decoder.reset``."""
        self._decoder.reset()

    def close(self) -> None:
        """See ``Decoder.close``."""
        self._decoder.close()

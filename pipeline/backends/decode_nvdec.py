"""Packets to pictures by NVDEC, through PyNvVideoCodec; the pictures stay in GPU memory.

A stream has one hardware decoder for its life: keyframes alone (``still``) and everything (``decode``) share
it, and only a still in the middle of a fed GOP opens a second one for a moment. A new sequence (size, depth,
colours or codec) opens another decoder, because the vendor's would scale the new pictures to the old size.
What its pictures look like PyNvVideoCodec does not say; so libavcodec decodes the first keyframe of each
sequence, too.

What NVDEC does not tell: pictures that it concealed. Damage is noticed where the source marks a packet, where
the parser refuses it, and in the first keyframe of a sequence; not in every flipped bit."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

import av

from pipeline.backends import cuda_device, decode_software
from pipeline.backends.annexb import Framing, is_needed, sequence
from pipeline.backends.frames_numpy import _planes as planes_of
from pipeline.backends.nvdec_feed import Feed
from pipeline.backends.nvdec_memory import DecoderMemory
from pipeline.backends.nvdec_session import Card, Sequence, check_supported, open_session
from pipeline.errors import DecodeError, SourceCorrupt, SourceNoRoom
from pipeline.flow.decode import Picture
from pipeline.flow.source import Packet, StreamInfo


def open_decoder(info: StreamInfo, *, card: Card | None = None) -> "NvdecDecoder":
    """The decoder of a session, on the first GPU that this process sees unless another ``card`` is given.

    :raises SourceUnsupported: NVDEC on this GPU does not decode this codec, form or size.
    :raises BackendError: there is no GPU, driver or package for it; says what is missing and the cure."""
    return NvdecDecoder(info, card or first_card())


@lru_cache(maxsize=1)
def first_card() -> Card:
    """The first GPU that this process sees, by CuPy."""
    return Card(0, cuda_device.open_stream, DecoderMemory(cuda_device.memory))


class NvdecDecoder:
    """Implements ``flow.decode.Decoder``; ``surface`` is a ``DeviceSurface``. For one thread at a time."""

    def __init__(self, info: StreamInfo, card: Card) -> None:
        self.damaged = 0
        self._info, self._card = info, card
        extradata, form = b"", ""
        if info.codec_parameters is not None:
            extradata = bytes(info.codec_parameters.extradata or b"")
            form = info.codec_parameters.pix_fmt or ""
        try:
            self._framing = self._first = Framing.of(info.codec, extradata)
        except ValueError as error:
            raise SourceCorrupt(f"{info.codec}: {error}") from error
        check_supported(card.number, info.codec, form, info.width, info.height)
        self._judge = decode_software.open_decoder(info)
        self._sequence: Sequence | None = None
        self._alone = True  # keyframes decode by themselves
        self._main: Feed | None = None
        self._side: Feed | None = None  # for a still while the main one is being fed
        self._old: list[Feed] = []  # their last pictures are still in use

    def still(self, packet: Packet) -> Picture | None:
        self._begin()
        feed: Feed | None = None
        try:
            data = self._prepare(packet)
            if not self._alone or self._sequence is None:
                return None
            feed = self._for_still(self._sequence)
            pictures = feed.feed(packet, data) or feed.drain()
        except DecodeError:
            self.damaged += 1
            self._replace(feed)
            raise
        except SourceNoRoom:
            self._replace(feed)
            raise
        feed.stop()
        return pictures[0] if pictures else None

    def decode(self, packet: Packet, *, wanted: bool = True) -> Iterable[Picture]:
        """Decodes at once; iterating gives the pictures, then raises the error if there was one.

        A picture that is not ``wanted`` is not decoded if none depends on it, else decoded and not given."""
        self._begin()
        pictures: list[Picture] = []
        try:
            data = self._prepare(packet)
            if self._main is not None and self._main.session.sequence is not self._sequence:
                pictures = self._main.drain()
                self._retire()
            started = self._main is not None and self._main.started
            if self._sequence is None or not (started or packet.keyframe):
                return pictures
            if started and not (wanted or is_needed(self._framing.codec, data)):
                return pictures
            pictures += self._open(self._sequence).feed(packet, data, wanted=wanted)
        except DecodeError as error:
            return _given(pictures + self._rescued(), error)
        except SourceNoRoom:
            self._replace(self._main)
            raise
        return pictures

    def flush(self) -> Iterable[Picture]:
        self._begin()
        self._drop_side()
        if self._main is None:
            return []
        try:
            return self._main.drain()
        except DecodeError as error:
            return _given(self._rescued(), error)

    def reset(self) -> None:
        self._begin()
        self._drop_side()
        if self._main is not None:
            self._main.stop()

    def close(self) -> None:
        self._drop_side()
        self._retire()
        self._begin()
        self._judge.close()

    def _begin(self) -> None:
        """The surfaces that the last call gave are not used any more."""
        old, self._old = self._old, []
        for feed in old:
            feed.close()

    def _retire(self) -> None:
        if self._main is not None:
            self._old.append(self._main)
            self._main = None

    def _drop_side(self) -> None:
        if self._side is not None:
            self._old.append(self._side)
            self._side = None

    def _open(self, about: Sequence) -> Feed:
        if self._main is None:
            self._main = Feed(open_session(about, self._card))
        return self._main

    def _for_still(self, about: Sequence) -> Feed:
        """The stream's own decoder unless that is in the middle of a GOP."""
        if self._main is not None and not self._main.started and self._main.session.sequence is not about:
            self._retire()
        if self._main is None or not self._main.started:
            feed = self._open(about)
        else:
            self._drop_side()
            feed = self._side = Feed(open_session(about, self._card))
        feed.stop()
        return feed

    def _rescued(self) -> list[Picture]:
        """After damage: what was decoded before it. A decoder that cannot even give that is replaced."""
        self.damaged += 1
        if self._main is None:
            return []
        try:
            return self._main.drain()
        except DecodeError:
            self._replace(self._main)
            return []

    def _replace(self, feed: Feed | None) -> None:
        """It failed: the next picture gets another decoder."""
        if feed is None:
            return
        feed.broken = True
        if feed is self._main:
            self._retire()
        else:
            self._drop_side()

    def _prepare(self, packet: Packet) -> bytes:
        """The packet as the parser wants it; a keyframe may begin another sequence.

        :raises DecodeError: it is damaged."""
        if packet.damaged:
            raise DecodeError(
                f"{self._framing.codec} packet at {packet.time_s:.3f} s is damaged: "
                "the source lost a part of it"
            )
        raw = bytes(packet.data)
        try:
            self._adopt(packet, raw)
            data = self._framing.annex_b(raw, packet.keyframe)
        except ValueError as error:
            raise DecodeError(f"packet at {packet.time_s:.3f} s is damaged: {error}") from error
        if packet.keyframe:
            header = self._framing.codec.encode() + sequence(self._framing.codec, data)
            if self._sequence is None or header != self._sequence.header:
                self._sequence = self._look(packet, header)
        return data

    def _adopt(self, packet: Packet, raw: bytes) -> None:
        """Follow the stream to new parameters, or to another codec in the same MPEG-TS.

        :raises ValueError: the parameters are cut short."""
        if packet.parameters_changed and packet.data.has_sidedata("new_extradata"):
            sent = bytes(packet.data.get_sidedata("new_extradata"))
            self._framing = self._first = Framing.of(self._framing.codec, sent)
        if packet.keyframe and not self._framing.length:
            codec = decode_software.sniff(memoryview(raw)[:16])
            if codec is not None and codec != self._framing.codec:
                self._framing = self._first if codec == self._first.codec else Framing(codec)

    def _look(self, packet: Packet, header: bytes) -> Sequence:
        """What libavcodec says of this keyframe.

        :raises DecodeError: it is damaged. :raises SourceUnsupported: not on this GPU."""
        picture = self._judge.still(packet)
        if picture is None and self._framing.codec != self._info.codec:
            raise DecodeError(
                f"{self._framing.codec} keyframe at {packet.time_s:.3f} s is damaged: it gives no picture"
            )
        self._alone = picture is not None
        if picture is None:  # it needs others: what the source said has to do
            about = self._info.codec_parameters
            form = (about.pix_fmt if about is not None else None) or "yuv420p"
            blank = av.VideoFrame(self._info.width, self._info.height, form)
            if about is not None:
                blank.colorspace, blank.color_range = about.colorspace, about.color_range
            picture = Picture(0.0, blank.width, blank.height, 0.0, self._info.rotation, blank)
        frame = picture.surface
        check_supported(self._card.number, self._framing.codec, frame.format.name, frame.width, frame.height)
        colour = planes_of(frame)[1]
        return Sequence(
            self._framing.codec,
            header,
            frame.width,
            frame.height,
            frame.format.name,
            colour,
            picture.rotation,
        )


def _given(pictures: list[Picture], error: DecodeError) -> Iterator[Picture]:
    yield from pictures
    raise error

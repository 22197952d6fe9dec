"""What graphics cards can do, from their vendor's figures. Nothing here was measured by us."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.capacity.figures import Basis, Figure

CardName = Literal["t4", "l4", "a10", "h100"]

NOTE = "Video Codec SDK 13.0, NVDEC application note"
CODECS = {"hevc": "HEVC 8 bit", "h264": "H.264", "vp9": "VP9", "av1": "AV1"}


@dataclass(frozen=True, slots=True)
class Generation:
    """An NVDEC engine: 1080p pictures a second at ``clock_mhz``, by FFmpeg's name of the codec."""

    name: str
    clock_mhz: float
    rates: Mapping[str, float]


TURING = Generation("Turing", 1860, {"h264": 771, "hevc": 1316, "vp9": 932})
AMPERE = Generation("Ampere", 1665, {"h264": 748, "hevc": 1415, "av1": 790})
ADA = Generation("Ada", 2160, {"h264": 903, "hevc": 1641, "av1": 1018})
UNRATED = frozenset({"vp8", "vp9", "mpeg2video", "mpeg4", "vc1"})
"""Codecs that NVDEC decodes and for which there may be no figure: H.264's, the lowest, is taken."""


@dataclass(frozen=True, slots=True)
class Card:
    """A card. ``video_mhz`` is its highest video clock, None where only the note's own clock is known: then
    the decoder's figure is an upper bound. ``resnet_int8`` is MLPerf's ResNet-50, pictures a second."""

    name: CardName
    title: str
    generation: Generation
    nvdecs: int
    video_mhz: float | None
    memory_gb: float
    watts: float
    resnet_int8: float
    resnet_source: str
    price_hour: float
    remark: str = ""
    spec_basis: Basis = field(default="derived")

    def decode_rate(self, codec: str, video_mhz: float | None = None) -> Figure | None:
        """1080p pictures a second of all engines together; None: this card cannot decode ``codec``."""
        rate = self.generation.rates.get(codec)
        said, basis = f"{NOTE}: {self.generation.name} {CODECS.get(codec, codec)}", self.spec_basis
        if rate is None:
            if codec not in UNRATED:
                return None
            rate = self.generation.rates["h264"]
            said, basis = f"{NOTE} has no figure for {codec}; that of H.264 is taken", "assumed"
        clock = video_mhz or self.video_mhz
        if clock is None:
            how = f"at the note's own {self.generation.clock_mhz:g} MHz: an upper bound"
        else:
            how = f"at {clock:g} of {self.generation.clock_mhz:g} MHz{'' if video_mhz is None else ', given'}"
        scale = (clock or self.generation.clock_mhz) / self.generation.clock_mhz
        return Figure(
            self.nvdecs * rate * scale, "1080p pictures/s", basis, f"{said}, {how}, x {self.nvdecs}"
        )

    def engine_rate(self) -> Figure:
        """Pictures a second of a classifier in FP16."""
        return Figure(
            self.resnet_int8 / 2,
            "pictures/s",
            "assumed",
            f"ResNet-50 INT8 {self.resnet_int8:,.0f}/s ({self.resnet_source}), halved for FP16; "
            "every model is taken to cost a ResNet-50",
        )


CARDS: dict[CardName, Card] = {
    "t4": Card("t4", "NVIDIA T4", TURING, 2, 1470, 16, 70, 5622, "MLPerf v0.5", 0.35),
    "l4": Card("l4", "NVIDIA L4", ADA, 4, None, 24, 72, 13158, "MLPerf v3.0", 0.56),
    "a10": Card("a10", "NVIDIA A10", AMPERE, 2, None, 24, 150, 13210, "MLPerf v1.0", 0.60),
    "h100": Card(
        "h100", "NVIDIA H100 SXM", TURING, 7, 1545, 80, 700, 81292, "MLPerf v2.1", 2.50,
        "its NVDEC is a Turing-class engine: no AV1",
    ),
}  # fmt: skip
"""Engines, memory and watts by NVIDIA's data sheets; video clocks of T4 and H100 as nvidia-smi shows them."""

"""A longer clip from short ones, without encoding them again: for benchmark material and tests."""

import os
from collections.abc import Iterable
from pathlib import Path

import av
from av.video.stream import VideoStream


def join_clips(clips: Iterable[Path], target: Path) -> Path:
    """Write ``target`` (MP4): the video packets of ``clips``, unchanged, one clip after the other.

    All are encoded alike but for their keyframes. Each must start with a keyframe and have no B-frames at its
    ends that lean on another clip, as closed GOPs do not. ``target`` appears when it is whole. Returns
    ``target``."""
    part = target.with_suffix(".part")
    with av.open(str(part), "w", format="mp4") as output:
        copy: VideoStream | None = None
        begin = 0
        for clip in clips:
            with av.open(str(clip)) as source:
                video = source.streams.video[0]
                copy = copy or output.add_stream_from_template(video)
                for packet in source.demux(video):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts += begin
                    packet.dts += begin
                    packet.stream = copy
                    output.mux(packet)
                begin += video.duration or 0
    os.replace(part, target)
    return target

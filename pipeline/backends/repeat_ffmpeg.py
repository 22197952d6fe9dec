"""A longer clip from a short one, without encoding it again: for benchmark material."""

import os
from pathlib import Path

import av


def repeat_clip(clip: Path, target: Path, times: int) -> Path:
    """Write ``target`` (MP4): the video packets of ``clip``, unchanged, ``times`` times one after the other.

    ``clip`` must start with a keyframe and have no B-frames at its ends that lean on another pass, as closed
    GOPs do not. ``target`` appears when it is whole. Returns ``target``."""
    part = target.with_suffix(".part")
    with av.open(str(clip)) as source, av.open(str(part), "w", format="mp4") as output:
        video = source.streams.video[0]
        copy = output.add_stream_from_template(video)
        length = video.duration or 0
        for turn in range(times):
            if turn:
                source.seek(video.start_time or 0, stream=video)
            for packet in source.demux(video):
                if packet.dts is None or packet.pts is None:
                    continue
                packet.pts += turn * length
                packet.dts += turn * length
                packet.stream = copy
                output.mux(packet)
    os.replace(part, target)
    return target

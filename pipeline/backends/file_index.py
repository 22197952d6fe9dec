"""The keyframes that a file's index names, as far as the index can be relied on."""

from av.video.stream import VideoStream

MOST_ENTRIES = 2_000_000
"""A longer index (18 hours at 30 pictures a second) is not gone through."""


def named_keyframes(stream: VideoStream, length: int) -> tuple[int, ...]:
    """The keyframes' timestamps as the index of a file of ``length`` bytes states them (MP4: when they are
    decoded, Matroska: when they are shown), in ticks of the stream, rising; () for an index that lies.

    It lies when an entry is not in the file (a cut one keeps its old index), when an edit list hides one, or
    when times fall. That it names too few is no lie: what is between two keyframes can be read. Call it when
    the index has been read: Matroska's after the first seek."""
    found: list[int] = []
    before = None
    if len(stream.index_entries) > MOST_ENTRIES:
        return ()
    for entry in stream.index_entries:  # a view of memory that moves when the demuxer reads on
        now = entry.timestamp
        if entry.is_discard or entry.pos + entry.size > length or (before is not None and now <= before):
            return ()
        if entry.is_keyframe:
            found.append(now)
        before = now
    return tuple(found)

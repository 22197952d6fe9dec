"""Picture files (PNG, JPEG and what else FFmpeg reads) as RGB arrays."""

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Shape (height, width, 3), RGB, 0..255.

    :raises ModelError: it cannot be read, or is no picture."""
    try:
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            return np.ascontiguousarray(frame.to_ndarray(format="rgb24"), np.uint8)
    except (av.FFmpegError, StopIteration, IndexError) as error:
        raise ModelError(f"picture {path}: cannot be read: {error}; give PNG or JPEG files") from error

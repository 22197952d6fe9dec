"""The loop that everybody writes first, to be measured against: OpenCV reads every picture of a file, ONNX
Runtime scores one every so many seconds.

    python -m pipeline.backends.peer_opencv FILE SPEC EVERY_S SECONDS

It imports nothing of ours. It is made as cheap as such a loop can be: OpenCV's own bilinear resize, one ONNX
Runtime thread, so that no thread spins. SPEC is JSON: ``weights`` (path of the ONNX file), ``output`` (name
or null) and the fields of ``InputSpec``.

Prints JSON: pictures ``read`` and ``scored``, ``seconds`` of media."""

import json
import sys
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray


def prepared(picture: Any, spec: dict[str, Any]) -> NDArray[np.float32]:
    """A batch of one from a BGR picture, as the model wants it."""
    height, width = spec["resize"] or (spec["height"], spec["width"])
    small = cv2.resize(picture, (width, height))
    top, left = (height - spec["height"]) // 2, (width - spec["width"]) // 2
    small = small[top : top + spec["height"], left : left + spec["width"]]
    if spec["channels"] == "rgb":
        small = small[:, :, ::-1]
    scaled = (small.astype(np.float32) - np.float32(spec["mean"])) * np.float32(spec["scale"])
    if spec["layout"] == "nchw":
        scaled = scaled.transpose(2, 0, 1)
    return np.ascontiguousarray(scaled[None])


def loop(path: str, spec: dict[str, Any], every_s: float, seconds: float) -> dict[str, float]:
    """Read up to ``seconds`` of the file, score one picture every ``every_s``."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(spec["weights"], options, providers=["CPUExecutionProvider"])
    given, wanted = session.get_inputs()[0].name, spec["output"] or session.get_outputs()[0].name
    video = cv2.VideoCapture(path)
    rate = video.get(cv2.CAP_PROP_FPS)
    step, most = max(1, round(rate * every_s)), round(rate * seconds)
    read = scored = 0
    while read < most:
        good, picture = video.read()
        if not good:
            break
        if read % step == 0:
            session.run([wanted], {given: prepared(picture, spec)})
            scored += 1
        read += 1
    video.release()
    return {"read": read, "scored": scored, "seconds": read / rate if rate else 0.0}


if __name__ == "__main__":
    _, file, about, every, length = sys.argv
    print(json.dumps(loop(file, json.loads(about), float(every), float(length))))  # noqa: T201 - its output

"""Which engines of the config's ``engine`` this interpreter can run on a GPU."""

from importlib.metadata import distributions
from importlib.util import find_spec


def on_gpu() -> list[str]:
    """``auto`` is TensorRT, either of the two; where neither is installed, but an ONNX Runtime for CUDA is,
    that one alone is to be tested."""
    tensorrt = any(find_spec(name) for name in ("tensorrt", "tensorrt_rtx"))
    cuda = ["onnxruntime-cuda"] if any(distributions(name="onnxruntime-gpu")) else []
    return cuda if cuda and not tensorrt else ["auto", *cuda]

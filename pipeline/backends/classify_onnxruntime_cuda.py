"""ONNX Runtime on an NVIDIA GPU, f32: for a server without TensorRT, where it is asked for by name.

The batch is read where the pool put it. Never run on a CPU: the provider needs a GPU."""

import contextlib
import io
from typing import Any

import numpy as np
import onnxruntime as ort

from pipeline import engines
from pipeline.backends.classify_common import Reading, plain_pictures
from pipeline.backends.classify_onnxruntime import errors_of, load
from pipeline.backends.cuda_device import load_cupy, on_gpu, open_stream
from pipeline.engines import Manifest
from pipeline.errors import ConfigError, ModelError
from pipeline.flow.classify import ModelInfo, Scores, Turn

ENGINE = "onnxruntime-cuda-f32"
PROVIDER = "CUDAExecutionProvider"
PRECISIONS = ("f32",)


def open_classifier(
    manifest: Manifest, *, threads: int, max_batch: int, gpu: int = 0
) -> "OnnxRuntimeCudaClassifier":
    """Load the model onto the GPU. ``threads`` are those of what runs on the host beside it.

    :raises BackendError: there is no usable GPU. :raises ConfigError: this ONNX Runtime has no CUDA.
    :raises ModelError: weights missing or wrong, or not what the manifest says."""
    open_stream(gpu)  # first of all: it fails in words where there is no GPU
    if PROVIDER not in ort.get_available_providers():
        raise ConfigError(
            f"engine: onnxruntime-cuda: ONNX Runtime {ort.__version__} is one without CUDA; "
            "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        )
    return OnnxRuntimeCudaClassifier(manifest, threads, max_batch, gpu)


class OnnxRuntimeCudaClassifier:
    """Implements ``Classifier``. Belongs to the one inference thread."""

    def __init__(self, manifest: Manifest, threads: int, max_batch: int, gpu: int) -> None:
        weights = engines.weights(manifest)
        self.info = ModelInfo(
            manifest.name, manifest.version, engines.sha256_of(weights), manifest.preprocess, ENGINE
        )
        self.spec = manifest.spec
        self.categories = tuple(manifest.categories)
        self.max_batch = max_batch
        self.thresholds: tuple[float, ...] = ()
        self.side_by_side = False
        self.turn: Turn = contextlib.nullcontext
        self._cupy = load_cupy()
        self._gpu = gpu
        # CUDA and cuDNN as pip installs them, which no loader's path names. What is missing is told below,
        # not on stdout, which is for machines.
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
        options = {
            "device_id": gpu,
            "use_tf32": 0,  # it would keep 10 bits of a value, and this is the f32 engine
            "cudnn_conv_algo_search": "HEURISTIC",  # to try them all takes a second for each size of batch
        }
        self._loaded: Any = load(weights, manifest, threads, [(PROVIDER, options)])
        if self._loaded.session.get_providers()[0] != PROVIDER:
            raise ModelError(
                f"model {manifest.name}: ONNX Runtime does not run it with CUDA: its CUDA or cuDNN libraries "
                "do not load here; pip install onnxruntime-gpu[cuda,cudnn]"
            )
        if self._loaded.fixed is not None:
            raise ModelError(
                f"model {manifest.name}: takes batches of {self._loaded.fixed} only, and a GPU is given all "
                "sizes; export it with an open batch size"
            )
        self._reading = Reading(manifest)
        plain = plain_pictures(manifest)
        parts = [self._run(plain[at : at + max_batch]) for at in range(0, len(plain), max_batch)]
        self._reading.check(np.concatenate(parts))
        for size in range(1, max_batch + 1):  # the first of a size takes long: not while streams wait
            self._run(np.zeros((size, *self.spec.slot_shape()), np.float32))

    def infer(self, pixels: Any) -> Scores:
        """Scores (n, categories) of a CuPy array (n, *slot), n from 1 to ``max_batch``. Waits on the host for
        what the calling thread's current stream has queued; when it returns the slots have been read.

        :raises BackendError: the engine failed, or gave something that is not 0..1."""
        if not 1 <= len(pixels) <= self.max_batch:
            raise ValueError(f"a batch of {len(pixels)} pictures; 1 to {self.max_batch} are allowed")
        return self._reading.scores(self._run(pixels), ENGINE)

    def close(self) -> None:
        """Free the engine. Nothing may be scored after; to close again does nothing."""
        self._loaded = None

    def _run(self, pixels: Any) -> Any:
        with errors_of(f"{self.info.name} on {ENGINE}"), on_gpu(self._gpu, "score a batch"):
            pixels = self._cupy.ascontiguousarray(self._cupy.asarray(pixels, np.float32))
            self._cupy.cuda.get_current_stream().synchronize()  # the provider works on a stream of its own
            binding = self._loaded.session.io_binding()
            binding.bind_input(
                self._loaded.given, "cuda", self._gpu, np.float32, pixels.shape, int(pixels.data.ptr)
            )
            binding.bind_output(self._loaded.wanted, "cpu")
            self._loaded.session.run_with_iobinding(binding)
            return np.asarray(binding.copy_outputs_to_cpu()[0], np.float32)

"""How the flow's protocols are kept: one file a vendor, loaded on use.

Only here are av, cv2, onnxruntime, openvino and redis imported, and only here do their errors appear: each is
mapped to one of ``pipeline.errors`` at the edge, ``raise X from exc`` (``tests/test_layers.py``).
"""

import sys

# OpenVINO reports each import to Google Analytics, unless this package is missing. A service that screens
# people's video talks to nobody that it was not told to.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

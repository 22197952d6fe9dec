"""How the flow's protocols are kept: one file a vendor, loaded on use.

Only here are av, cv2, onnxruntime, openvino and redis imported, and only here do their errors appear: each is
mapped to one of ``pipeline.errors`` at the edge, ``raise X from exc`` (``tests/test_layers.py``).
"""

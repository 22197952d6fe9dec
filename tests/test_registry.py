"""Which backend is chosen, and what is said when it cannot be."""

import pytest

from pipeline import engines
from pipeline.backends import registry
from pipeline.errors import ConfigError


def test_an_unknown_engine_is_answered_with_the_known_ones() -> None:
    manifest = engines.load_manifest("open-nsfw")
    with pytest.raises(ConfigError, match="'tenserrt': there is none; allowed: auto, openvino, "):
        registry.open_classifier(manifest, engine="tenserrt", threads=1, max_batch=1)


def test_device_auto_says_what_it_chose_and_why() -> None:
    device, why = registry.choose_device("auto")
    missing = [piece for piece in registry.gpu_pieces() if not piece.available]
    assert (device == "cpu") == bool(missing)
    assert not missing or missing[0].name in why


def test_device_gpu_is_that_or_an_error_that_names_what_is_missing() -> None:
    missing = [piece for piece in registry.gpu_pieces() if not piece.available]
    if not missing:
        assert registry.choose_device("gpu")[0] == "gpu"
        return
    with pytest.raises(
        ConfigError, match=r"device: gpu: cannot be used here: .*or set device: auto or cpu"
    ) as caught:
        registry.choose_device("gpu")
    assert all(piece.name in str(caught.value) for piece in missing)

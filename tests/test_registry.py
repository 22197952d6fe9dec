"""Which backend is chosen, and what is said when it cannot be."""

from pathlib import Path

import pytest

from pipeline import engines
from pipeline.backends import registry
from pipeline.engine_cache import REPORT, key_of
from pipeline.errors import ConfigError


def test_an_unknown_engine_is_answered_with_the_known_ones() -> None:
    manifest = engines.load_manifest("open-nsfw")
    with pytest.raises(ConfigError, match="'tenserrt': there is none; allowed: auto, openvino, "):
        registry.open_classifier(manifest, engine="tenserrt", threads=1, max_batch=1)


def test_device_auto_says_what_it_chose_and_why() -> None:
    device, why = registry.choose_device("auto")
    missing = [piece for piece in registry.gpu_pieces() if not piece.available]
    assert not missing or (device == "cpu" and missing[0].name in why)


def put_there(model: str, engine: str) -> None:
    """What lies where an engine was built."""
    manifest = engines.load_manifest(model)
    about = {"runtime": "10", "target": "T4", "recipe": "1", "max_batch": 16}
    folder = key_of(manifest, "0" * 64, engine, "f16", **about).folder()  # type: ignore[arg-type]
    folder.mkdir(parents=True)
    (folder / REPORT).write_text("{}")


@pytest.mark.parametrize("engine", ["tensorrt", "tensorrt-rtx"])
def test_device_auto_takes_a_gpu_only_when_an_engine_of_each_model_was_built_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(registry, "gpu_pieces", lambda engine="auto": [])  # nothing is missing
    both = ["open-nsfw", "image-safety-s"]
    device, why = registry.choose_device("auto")
    assert (device, "no engine of any model: framewarden engine build MODEL " in why) == ("cpu", True)
    put_there("open-nsfw", "openvino")  # an engine for this CPU is none for a GPU
    assert registry.choose_device("auto", models=["open-nsfw"])[0] == "cpu"
    put_there("open-nsfw", engine)
    assert registry.choose_device("auto")[0] == "gpu"
    assert registry.choose_device("auto", models=["open-nsfw"])[0] == "gpu"
    device, why = registry.choose_device("auto", models=both)
    assert (device, "but no engine of image-safety-s: framewarden engine build image-safety-s " in why) == (
        "cpu",
        True,
    )
    put_there("image-safety-s", engine)
    assert registry.choose_device("auto", models=both)[0] == "gpu"


def test_what_is_asked_for_by_name_never_gives_way_to_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(registry, "gpu_pieces", lambda engine="auto": [])
    assert registry.choose_device("gpu", models=["open-nsfw"])[0] == "gpu"
    assert registry.choose_device("auto", "tensorrt", ["open-nsfw"])[0] == "gpu"
    assert registry.choose_device("auto", "onnxruntime-cuda", ["open-nsfw"])[0] == "gpu"


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

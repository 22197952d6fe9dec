"""``config``, ``status``, ``doctor`` and ``engine``."""

import json
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from pipeline import engine_cache, engines, status
from pipeline.backends import classify_openvino
from pipeline.engines import Verification
from tests.cli.command import framewarden
from tests.test_status import snapshot, stream

CONFIG = "state_dir: st\nstreams: [{id: cam, url: 'rtsp://u:${PW:-hunter2}@h/x'}]\n"


def test_a_right_config_is_called_right(tmp_path: Path) -> None:
    (tmp_path / "fw.yaml").write_text(CONFIG)
    found = framewarden("config", "check", "fw.yaml", cwd=tmp_path)
    assert (found.code, found.out, found.err) == (0, "", "fw.yaml: right: 1 stream\n")


def test_a_category_that_no_model_has_is_found_by_check(tmp_path: Path) -> None:
    (tmp_path / "fw.yaml").write_text(CONFIG + "policy: {weapons: {open: 0.9}}\n")
    found = framewarden("config", "check", "fw.yaml", cwd=tmp_path)
    assert found.code == 2
    assert (
        "fw.yaml:3: policy.weapons: a mapping: no model in use has this category; categories: sexual"
        in found.err
    )


def test_the_schema_is_json_that_editors_can_use(tmp_path: Path) -> None:
    found = framewarden("config", "schema", cwd=tmp_path)
    assert found.code == 0
    jsonschema.Draft202012Validator(json.loads(found.out)).validate(yaml.safe_load(CONFIG))


def test_status_reads_the_snapshot_of_the_configs_state_dir(tmp_path: Path) -> None:
    (tmp_path / "fw.yaml").write_text(CONFIG)
    (tmp_path / "st").mkdir()
    status.write(tmp_path / "st", snapshot(stream("cam-1"), time=time.time()))
    text = framewarden("status", "fw.yaml", cwd=tmp_path)
    assert text.code == 0
    assert "cam-1  connected  plan=keyframes" in text.out
    machine = framewarden("status", "fw.yaml", "--json", cwd=tmp_path)
    assert json.loads(machine.out)["streams"][0]["id"] == "cam-1"
    check = framewarden("status", "fw.yaml", "--check", cwd=tmp_path)
    assert (check.code, check.out, check.err) == (0, "", "")


def test_check_exits_1_and_says_why_when_a_run_is_stale_or_was_never_there(tmp_path: Path) -> None:
    never = framewarden("status", "--check", cwd=tmp_path)
    assert (never.code, never.out) == (1, "")
    assert "no run has written a status here" in never.err
    (tmp_path / "state").mkdir()
    status.write(tmp_path / "state", snapshot(time=time.time() - 60))
    stale = framewarden("status", "--check", cwd=tmp_path)
    assert (stale.code, stale.out) == (1, "")
    assert stale.err.startswith("framewarden: unhealthy: the status is 6")
    assert framewarden("status", cwd=tmp_path).code == 0


def test_doctor_says_what_there_is_and_the_cure_for_what_there_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # no engine was built
    found = framewarden("doctor", "--json", cwd=tmp_path)
    assert found.code == 0
    report = json.loads(found.out)
    assert set(report) == {
        "device", "device_reason", "decoders", "pools", "engines", "models", "protocols", "redis", "gpu",
    }  # fmt: skip
    pieces = [piece for section in report.values() if isinstance(section, list) for piece in section]
    assert all(piece["reason"] for piece in pieces)
    have = {piece["name"]: piece["available"] for piece in pieces}
    assert have["h264"]
    assert have["openvino"]
    assert have["open-nsfw"]
    assert have["embedded server"]
    said = {piece["name"]: piece["reason"] for piece in report["gpu"]}
    assert said["TensorRT for RTX"][0].isdigit(), "its version, by whichever name it was installed"
    assert (
        have["NVIDIA driver"]
        or "install the NVIDIA driver" in said["NVIDIA driver"]
        or "no GPU" in said["NVIDIA driver"]
    )
    srt = next(piece for piece in report["protocols"] if piece["name"] == "srt")
    assert srt["available"] or "pip install --no-binary av" in srt["reason"]
    model = next(piece["reason"] for piece in report["models"] if piece["name"] == "open-nsfw")
    hint = "engine build open-nsfw --engine openvino --precision int8"
    assert "; on a CPU openvino-" in model
    assert (hint in model) == ("int8" in classify_openvino.available_precisions())
    text = framewarden("doctor", cwd=tmp_path)
    assert text.code == 0
    assert text.out.startswith(f"device: {report['device']}: ")
    assert "decoders: h264: yes: in software" in text.out


def test_doctor_prints_clean_json_where_an_engine_no_longer_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    older = replace(classify_openvino.int8_key(engines.load_manifest("open-nsfw")), runtime="openvino 1")
    right = Verification("open-nsfw", "openvino-int8", "onnxruntime-f32", 1000, 0.3, 1.0, 0.0, 0.0, 0.1)
    engine_cache.keep(older, {classify_openvino.GRAPH: b"built"}, right, {})
    found = framewarden("doctor", "--json", cwd=tmp_path)
    model = next(piece for piece in json.loads(found.out)["models"] if piece["name"] == "open-nsfw")
    assert "; on a CPU openvino-" in model["reason"]


def test_engine_list_and_fetch_show_licences_and_check_weights(tmp_path: Path) -> None:
    listed = framewarden("engine", "list", "--json", cwd=tmp_path)
    rows = {row["name"]: row for row in json.loads(listed.out)}
    assert set(rows) >= {"open-nsfw", "image-safety-s"}
    assert rows["open-nsfw"]["licence"].startswith("BSD")
    assert set(rows["image-safety-s"]["categories"]) == {"graphic", "sexual"}
    fetched = framewarden("engine", "fetch", cwd=tmp_path)
    assert fetched.code == 0
    assert [line.split(":")[0] for line in fetched.out.splitlines()] == sorted(rows)
    assert framewarden("engine", "fetch", "--quiet", cwd=tmp_path).out == ""


def test_engine_verify_reports_the_difference_from_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = ("--engine", "onnxruntime", "--frames", "50", "--json")
    found = framewarden("engine", "verify", "open-nsfw", *asked, cwd=tmp_path)
    report = json.loads(found.out)
    assert (found.code, report["ok"], report["worst"], report["frames"]) == (0, True, 0.0, 50)

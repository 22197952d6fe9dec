"""``framewarden bench``: its subcommands run for seconds on tiny material, and their arithmetic by hand.

No speed is asserted: tiny material on a busy machine says nothing of it."""

import hashlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from pipeline.backends import peer_ffmpeg
from pipeline.backends.decode_software import open_decoder
from pipeline.bench import (
    child,
    films,
    flash,
    flash_report,
    growth,
    judge,
    material,
    parts,
    peers,
    processes,
    said,
    service,
    streams,
    streams_report,
)
from pipeline.bench.child import BenchError, Child
from pipeline.bench.files import REST, bound, breakdown
from pipeline.bench.judge import Finding
from pipeline.bench.machine import this_machine
from pipeline.bench.material import Material
from pipeline.bench.page import Bars, Lines
from pipeline.bench.parts import Parts
from pipeline.bench.peers import Cost
from pipeline.bench.promises import Promise
from pipeline.bench.report import Report, Section, Table, shown
from pipeline.bench.said import Account, Ended
from pipeline.bench.service import Streams, Window
from tests.cli.command import Result, framewarden
from tests.fixtures.media import Clips, demux
from tests.fixtures.own_model import ACCEPTS, write_manifest
from tests.fixtures.tiny_onnx import mean_colour_model

MATERIAL = {
    *("name", "path", "sha256", "seconds", "bit_rate", "gop_s"),
    *("keyframe_bytes", "keyframe_ms", "keyframe_ms_a_stream_second"),
}


@pytest.fixture(scope="module")
def film(clips: Clips) -> Path:
    """8 s of 320x180 at 30 pictures a second, a keyframe a second."""
    return clips(width=320, height=180, pictures=240, rate=30, gop=30)


@pytest.fixture(scope="module")
def own_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a model that every engine loads at once, and that flags nothing."""
    folder = tmp_path_factory.mktemp("model")
    mean_colour_model(folder / "mine.onnx", bias=(-9.0, 0.0, 0.0))
    return write_manifest(folder, categories={"warm": ["red"]}, tolerance=ACCEPTS)


def bench(cwd: Path, *words: str | Path) -> tuple[Result, dict[str, Any]]:
    """``framewarden bench WORDS``, and its JSON."""
    result = framewarden("bench", *map(str, words), "--json", "found.json", cwd=cwd)
    assert result.code == 0, result.err
    return result, json.loads((cwd / "found.json").read_text())


def circumstances(report: dict[str, Any]) -> None:
    """What every report must state."""
    assert report["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert report["machine"]["cpu"]
    assert (
        report["machine"]["vectors"] == "unknown"
        or report["machine"]["vectors"] in Path("/proc/cpuinfo").read_text()
    )
    assert report["machine"]["memory_gb"] > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", report["date"])
    assert {"python", "av", "openvino", "onnxruntime"} <= report["versions"].keys()
    assert report["command"].startswith("framewarden bench")


# ---- the commands -----------------------------------------------------------------------------------------


def test_files_puts_screen_beside_its_peers_and_says_where_its_cpu_goes(film: Path, tmp_path: Path) -> None:
    said, report = bench(tmp_path, "files", "--file", film, "--repeat", "1", "--report", "reports")
    circumstances(report)
    assert report["material"].keys() >= MATERIAL
    assert report["material"]["gop_s"] == 1.0
    found = report["files"]
    programs = {program["name"]: program for program in found["programs"]}
    ours, loop = programs["framewarden screen"], programs["OpenCV loop"]
    assert programs.keys() > {"libavcodec, keyframes", "libavcodec, all"}
    for program in programs.values():
        if program["media_s"]:
            assert program["media_s"] == pytest.approx(8.0, abs=0.05)
            assert program["ms_a_stream_second"] == pytest.approx(1e3 * program["cpu_s"] / program["media_s"])
            assert program["stream_hours_a_core_hour"] == pytest.approx(program["media_s"] / program["cpu_s"])
            ratio = ours["ms_a_stream_second"] / program["ms_a_stream_second"]
            assert program["ours_to_this"] == pytest.approx(ratio)
    assert loop["pictures"] == 240
    assert found["runs"][0]["screened_s"] == pytest.approx(8.0, abs=0.1)
    assert sum(found["shares_s"].values()) == pytest.approx(ours["cpu_s"])
    assert "| OpenCV loop |" in said.out
    written = sorted(path.suffix for path in (tmp_path / "reports").iterdir())
    assert written == [".html", ".json", ".md"]


@pytest.mark.timeout(300)
def test_alone_it_runs_files_streams_and_engines_and_writes_one_report(
    film: Path, own_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cli.bench.QUICK_BATCHES", (1,))
    words = ("--file", film, "--model", own_model, "--streams", "2", "--seconds", "2", "--report", "reports")
    _, report = bench(tmp_path, *words)
    circumstances(report)
    command = f"framewarden bench --file {film} --model {own_model} --streams 2 --seconds 2.0"
    assert report["command"] == command
    streams_add_up(report["streams"], count=2)
    assert report["streams"]["runs"][0]["memory_each_mb"] is not None
    assert report["files"]["programs"][0]["cpu_s"] > 0
    assert {engine["engine"] for engine in report["engine"]["engines"]} >= {"onnxruntime-f32"}
    (page,) = (tmp_path / "reports").glob("*.html")
    stands_alone(page.read_text(), plots=5)


@pytest.mark.timeout(300)
def test_streams_come_from_a_real_rtsp_server_whose_cpu_is_told_apart(
    film: Path, own_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More streams than asyncio has threads by itself on a small machine."""
    monkeypatch.setattr(streams, "FEW", 0)  # memory, for which there is one more run, is another test's
    words = ("streams", "--file", film, "--model", own_model, "--streams", "8", "--seconds", "3")
    said, report = bench(tmp_path, *words, "--kind", "rtsp")
    found = report["streams"]
    assert found["kind"] == "rtsp"
    streams_add_up(found, count=8)
    run = found["runs"][0]
    assert run["server_s"] > 0
    assert run["samples_a_second"] > 0
    assert [p["kept"] for p in run["promises"] if p["name"] == "every stream screened"] == [True]
    assert "The RTSP server beside it used" in said.out


def test_what_the_workers_say_is_read_in_the_window(film: Path) -> None:
    seen = service.watch(Streams([str(film)], "open-nsfw", 3.0, 0.0), lambda _: None)
    scored = [worker["scored"] for workers in seen.workers for worker in workers]
    assert scored == sorted(scored)
    assert scored[0] >= seen.before["workers"][0]["scored"]
    assert scored[-1] <= seen.after["workers"][0]["scored"]


def streams_add_up(found: dict[str, Any], *, count: int) -> None:
    """The arithmetic of ``bench streams``."""
    (run,) = found["runs"]
    limit = found["limit"]
    assert run["streams"] == found["streams"] == count
    assert run["cpu_s"] == pytest.approx(sum(run["used_s"].values()))
    assert run["used_s"].keys() == {"workers", "supervisor", "redis"}
    assert run["cores"] == pytest.approx(run["cpu_s"] / run["seconds"])
    assert run["ms"] == pytest.approx(1e3 * run["cores"] / count)
    assert limit["total_ms"] == pytest.approx(sum(limit["ms_a_stream_second"].values()))
    assert limit["ours_times_limit"] == pytest.approx(run["ms"] / limit["total_ms"])
    assert limit["ms_a_stream_second"].keys() == {"demux", "decode", "conversion", "engine"}
    assert sum(found["shares_ms"].values()) == pytest.approx(run["ms"])
    assert run["kept"] == all(promise["kept"] for promise in run["promises"])
    promises = {promise["name"]: promise for promise in run["promises"]}
    assert promises["every stream screened"]["kept"]
    assert promises["no worker died"]["kept"]
    assert any(name.startswith("every gap at most 2.1 s") for name in promises)
    assert run["p99_ms"] >= run["p50_ms"] > 0
    assert run["plans"] == {"keyframes": count}


def test_engine_measures_every_engine_at_every_batch_or_says_why_not(own_model: Path, tmp_path: Path) -> None:
    words = ("engine", "--model", str(own_model), "--batch", "2", "--threads", "1", "--json", "-")
    report = json.loads(framewarden("bench", *words, cwd=tmp_path).out)  # and nothing but JSON
    circumstances(report)
    assert report["material"] == {}
    engines = {engine["engine"]: engine for engine in report["engine"]["engines"]}
    assert engines.keys() >= {"openvino-bf16", "openvino-f32", "onnxruntime-f32"}
    for engine in engines.values():
        assert bool(engine["why"]) != bool(engine["speeds"])
        for speed in engine["speeds"]:
            assert speed["batch"] == 2
            # One thread cannot spend more CPU than time has passed.
            assert speed["cpu_ms"] * speed["per_second"] <= 1e3 * 1.05


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["files", "--file", "none.mp4"], 1, "none.mp4"),
        (["files", "--file", "text.mp4"], 1, "a benchmark needs a video file"),
        (["streams", "--json", "nowhere/found.json"], 2, "there is no folder nowhere"),
        (["engine", "--model", "open-nsfv"], 2, "did you mean open-nsfw?"),
        (["stream"], 2, "Did you mean"),
        (["--film", "heavy", "files"], 2, "--film goes behind files"),
        (["streams", "--flagged", "0.1", "--file", "text.mp4"], 2, "--flagged needs a film of ours"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line_before_anything_is(
    words: list[str], code: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "text.mp4").write_text("this is no film\n")
    result = framewarden("bench", *words, cwd=tmp_path)
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert "Traceback" not in result.err


# ---- what processes use -----------------------------------------------------------------------------------

BUSY = "import time\nwhile time.process_time() < {s}: pass\n"


def test_a_child_is_charged_its_cpu_and_that_of_its_children() -> None:
    inner = f"[sys.executable, '-c', {BUSY.format(s=0.3)!r}]"
    used = child.run(
        [sys.executable, "-c", f"import subprocess, sys\nsubprocess.run({inner})\nprint('done')"]
    )
    assert used.out == "done\n"
    assert used.cpu_s >= 0.3
    assert used.peak_mb > 1


def test_waiting_costs_a_child_nothing() -> None:
    used = child.run([sys.executable, "-S", "-c", "import threading\nthreading.Event().wait(0.5)"])
    assert used.wall_s >= 0.5
    assert used.cpu_s < 0.4


def test_a_child_that_fails_is_an_error_that_says_what_it_said() -> None:
    with pytest.raises(BenchError, match=r"exit code 1: .*no such thing"):
        child.run([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_a_child_does_not_outlive_its_block() -> None:
    with Child([sys.executable, "-c", "import threading\nthreading.Event().wait()"]) as running:
        assert not running.wait(0)
    assert running.usage().code != 0
    assert not Path(f"/proc/{running.pid}").exists()


def test_a_child_does_not_outlive_a_bench_that_is_killed() -> None:
    program = "import time; from pipeline.bench.child import Child; "
    program += "print(Child(['sleep', '600']).pid, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout is not None
        pid = int(bench.stdout.readline())
        watch = os.pidfd_open(pid)
        bench.kill()
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        ended = poll.poll(20_000)
    os.close(watch)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    assert ended


def test_a_familys_cpu_is_read_while_it_runs_and_keeps_what_an_ended_child_used() -> None:
    inner = f"[sys.executable, '-c', {BUSY.format(s=0.3)!r}]"
    program = (
        f"import subprocess, sys, threading\nsubprocess.run({inner})\n"
        "print('ready', flush=True)\nthreading.Event().wait()"
    )
    with Child([sys.executable, "-c", program]) as running:
        while "ready" not in running.out:
            assert not running.wait(0.05)
        used = processes.used(running.pid)
        assert used.total_s == used.cpu_s["supervisor"] >= 0.28  # ticks of 10 ms
        assert used.memory_mb > 1


# ---- arithmetic -------------------------------------------------------------------------------------------

ALONE = Parts(2.0, 30.0, 1.0, 10.0, 4, "openvino-bf16", 30, 60.0, "62")


def test_the_limit_is_demux_and_what_each_needed_picture_costs() -> None:
    """At a picture every 2 s: 2 + (30 + 1 + 10) / 2 = 22.5 ms a stream-second."""
    needed = ALONE.per_stream_second(0.5)
    assert needed == {"demux": 2.0, "decode": 15.0, "conversion": 0.5, "engine": 5.0}


@pytest.mark.parametrize(("width", "deblocked"), [(640, True), (1280, False)])
def test_the_limit_decodes_a_keyframe_as_the_service_does(clips: Clips, width: int, deblocked: bool) -> None:
    """A large one is deblocked by neither of them."""
    path = clips(width=width, height=720, pictures=4, gop=2, options={"crf": "40"})
    info, packets = demux(path)
    decoder = open_decoder(info)
    ours = [decoder.still(packet) for packet in packets if packet.keyframe]
    limit = peer_ffmpeg.stills(str(path), 1.0, keep=2).kept
    whole = [picture for packet in packets for picture in decoder.decode(packet)]
    first, *_ = [*whole, *decoder.flush()]
    assert len(ours) == len(limit) == 2
    for one, other in zip(ours, limit, strict=True):
        assert one is not None
        assert np.array_equal(one.surface.to_ndarray(), other.surface.to_ndarray())
    assert np.array_equal(limit[0].surface.to_ndarray(), first.surface.to_ndarray()) == deblocked


def test_the_shares_of_a_file_add_up_and_the_greatest_is_named() -> None:
    """100 s at 22.5 ms are 2.25 s; of 4 s, 1.5 s are start-up, so 0.25 s are left: the start-up is 38 %."""
    ours = Cost("ours", 4.0, 100.0, "")
    shares = breakdown(ours, ALONE, start_s=1.5, every_s=2.0)
    assert sum(shares.values()) == pytest.approx(4.0)
    assert shares[REST] == pytest.approx(0.25)
    assert bound(shares).startswith("Bound by: start-up (38 % of the CPU).")


@pytest.mark.parametrize(
    ("gop_s", "every_s"), [(2.0, 2.0), (2.002, 2.002), (1.0, 2.0), (0.5, 2.0), (0.7, 2.1), (10.0, 10.0)]
)
def test_keyframes_are_needed_as_rarely_as_the_gap_allows(gop_s: float, every_s: float, film: Path) -> None:
    assert films.interval_s(replace(films.own(film), gop_s=gop_s), 2.0) == pytest.approx(every_s)


def test_a_stream_costs_what_more_streams_add_and_the_base_is_the_rest() -> None:
    """238 MB with one, 342 with three: 52 a stream over 186."""
    assert judge.memory(342.0, 3, judge.Few(1, 238.0)) == (186.0, 52.0)
    assert judge.memory(238.0, 1, None) == (None, None)
    assert judge.memory(342.0, 3, judge.Few(3, 342.0)) == (None, None)


def row(name: str = "s001", **changes: Any) -> dict[str, Any]:
    """A stream's row of a snapshot in which all is well."""
    lost = {"screened_s": 60.0, "late_s": 0.0, "dropped_s": 0.0, "lost_s": changes.pop("lost_s", 0.0)}
    plain = {"id": name, "state": "screening", "plan": "keyframes", "frames": 30, "max_gap_s": 2.0}
    gaps = {"gap_worst_s": 2.0, "gap_now_s": 1.0, "gap_s": 2.0, "drops": {}, "coverage": lost, "segments": 0}
    return plain | gaps | {"looks_refused": 0} | changes


SHOWN = material.Shown(5.0, 15.0, 60.0)


def window(before: list[dict[str, Any]], after: list[dict[str, Any]], **changes: Any) -> Window:
    """Ten seconds of a run with one worker."""

    def snapshot(time: float, rows: list[dict[str, Any]], scored: int) -> dict[str, Any]:
        latency = {"p50": 90.0, "p99": changes.get("p99", 400.0)}
        worker = {"id": 0, "restarts": 0, "scored": scored, "latency_ms": latency}
        return {"time": time, "streams": rows, "workers": [worker | changes.get("worker", {})]}

    streams = Streams([row["id"] for row in after], "open-nsfw", 10.0, 0.0, spread=True)
    return Window(
        streams=replace(streams, flagged=frozenset(changes.get("flagged", ())), shown=changes.get("shown")),
        ended=changes.get("ended", ()),
        before=snapshot(1000.0, before, 100),
        after=snapshot(1010.0, after, 160),
        seconds=10.0,
        used={"workers": 0.9, "supervisor": 0.08, "redis": 0.02},
        server_s=0.0,
        memory_mb=300.0,
        machine_s=changes.get("machine_s", 1.0),
        thread_s=0.5,
        lost=changes.get("lost", {}),
        accounts=changes.get("accounts", {row["id"]: Account(70.0, 70.0, 0.0, 0.0, 0.0) for row in after}),
    )


def test_a_run_in_which_all_is_well_keeps_every_promise_but_the_one_on_its_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1 CPU second in 10 s on two streams: 0.1 cores, 50 ms a stream-second; 20 MB a stream are too much, if
    that is certain."""
    seen, few = window([row(), row("s002")], [row(frames=35), row("s002", frames=35)]), judge.Few(1, 280.0)
    assert judge.judge(seen, few=few, lean=True).kept
    monkeypatch.setattr(judge, "NOISE_MB", 0.5)
    found = judge.judge(seen, few=few, lean=True)
    assert found.broken == "at most 8 MB a stream: 20.0 MB"
    assert found.memory_unsure_mb == 0.5
    assert (found.cores, found.ms, found.samples_a_second) == (0.1, 50.0, 1.0)
    assert (found.memory_base_mb, found.memory_each_mb) == (260.0, 20.0)
    assert found.latency_of == 160
    assert found.latency_with_start  # of 160 samples 60 are of the window


@pytest.mark.parametrize(
    ("before", "after", "changes", "broken"),
    [
        ({}, {"gap_worst_s": 2.5}, {}, "every gap at most 2.1 s: 2.50 s; on 1 streams: s001"),
        ({}, {"lost_s": 0.5}, {"lost": {"stalled": 0.5}}, "(seconds by cause: stalled 0.5)"),
        ({}, {"gap_now_s": 3.2}, {}, "every gap at most 2.1 s: 3.20 s"),
        ({}, {"gap_now_s": None, "gap_worst_s": None}, {}, "every gap at most 2.1 s: 0.00 s; on 1 streams"),
        ({}, {"drops": {"overload": 2}}, {}, "nothing dropped: overload 2"),
        ({"drops": {"overload": 2}}, {"drops": {"overload": 5}}, {}, "nothing dropped: overload 3"),
        ({}, {"state": "lost"}, {}, "every stream screened: 1 of 1 are not: s001"),
        ({}, {}, {"accounts": {}}, "add up: 1 of 1 gave no account"),
        ({}, {}, {"accounts": {"s001": Account(70.0, 60.0, 1.0, 2.0, 3.0)}}, "wrong on 1: s001"),
        ({}, {}, {"flagged": [0]}, "raised a segment, no other did: 0 of 1 flagged, 0 others"),
        (
            {"segments": 1},
            {"segments": 1},
            {"flagged": [0], "shown": SHOWN, "ended": [Ended(65.1, 75.9, 0.06, 0.5)]},
            "or as uncertain as it says: 1 of 2 are so near, the farthest 0.90 s; 1 farther than they say",
        ),
        ({}, {}, {"p99": 1000.0}, "99 % from capture to score under 1 s: 1000 ms"),
        ({}, {}, {"p99": None}, "no sample was scored"),
    ],
)
def test_a_broken_promise_is_named_with_what_was_seen(
    before: dict[str, Any], after: dict[str, Any], changes: dict[str, Any], broken: str
) -> None:
    found = judge.judge(window([row(**before)], [row(**after)], **changes), few=None)
    assert not found.kept
    assert broken in found.broken


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"gap_worst_s": 3.5, "lost_s": 1.5}, {"gap_worst_s": 3.5, "lost_s": 1.5}),
        ({"drops": {"overload": 2}}, {"drops": {"overload": 2}}),
        ({}, {"gap_worst_s": 2.1, "gap_now_s": 2.9}),
    ],
)
def test_what_happened_before_the_window_or_may_still_be_scored_breaks_nothing(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    found = judge.judge(window([row(**before)], [row(**after)]), few=None)
    assert found.kept, found.broken


def test_a_boundary_is_as_near_as_promised_or_as_uncertain_as_it_says() -> None:
    """The first segment is near the truth; the start of the second is 0.8 s late, and says 1 s."""
    ended = [Ended(4.9, 15.2, 0.06, 0.06), Ended(65.8, 75.0, 1.0, 0.06)]
    seen = window([row()], [row(segments=2, looks_refused=1)], flagged=[0], shown=SHOWN, ended=ended)
    found = judge.judge(seen, few=None)
    assert found.kept, found.broken
    assert found.looks_refused == 1
    (said,) = (one.said for one in found.promises if "boundary" in one.name)
    assert said == "3 of 4 are so near, the farthest 0.80 s; 0 farther than they say"


def telling(scored: int, p50: float, p99: float | None) -> list[dict[str, Any]]:
    """What the one worker said at some time in the window; it had scored 100 before."""
    return [{"id": 0, "restarts": 0, "scored": scored, "latency_ms": {"p50": p50, "p99": p99}}]


def test_the_worst_latency_in_the_window_is_judged_and_not_the_last() -> None:
    """The slow samples are in the second reading; the first still has samples of the start in it."""
    plain = window([row()], [row()])
    seen = replace(
        plain,
        after=plain.after | {"workers": telling(9000, 90.0, 400.0)},
        workers=[telling(4000, 200.0, 3000.0), telling(5000, 120.0, 1500.0), telling(8000, 90.0, 400.0)],
    )
    found = judge.judge(seen, few=None)
    assert (found.p50_ms, found.p99_ms) == (120.0, 1500.0)
    assert (found.latency_of, found.latency_with_start) == (judge.WORKER_WINDOW, False)
    assert "99 % from capture to score under 1 s: 1500 ms" in found.broken
    assert "worst 99th percentile" in reported(found).markdown()


def test_of_few_samples_the_last_reading_is_judged_that_has_them_all() -> None:
    seen = replace(window([row()], [row()]), workers=[telling(120, 200.0, 3000.0)])
    found = judge.judge(seen, few=None)
    assert (found.p99_ms, found.latency_of, found.latency_with_start) == (400.0, 160, True)
    assert (
        "Latencies are of the last 160 samples, those of the start among them." in reported(found).markdown()
    )


TURNS = (ALONE, replace(ALONE, decode_ms=ALONE.decode_ms + 4.0))


def reported(
    found: Finding,
    flagged: Material | None = None,
    command: str = "framewarden bench",
    alone: Sequence[Parts] = TURNS,
) -> Report:
    """The report of one run."""
    section = streams_report.section(
        [found],
        alone=alone,
        pictures_a_second=0.5,
        others=[],
        kind="realtime",
        find_limit=False,
        flagged=flagged,
    )
    return Report("bench streams", command, "2026-11-23T10:00:00+00:00", this_machine(), {}, {}, [section])


def test_films_are_held_in_memory_while_streams_show_them(film: Path) -> None:
    def held() -> bool:
        return str(film) in Path("/proc/self/maps").read_text()

    with streams.in_memory([film]):
        assert held()
    assert not held()


def test_the_limit_is_the_mean_of_before_and_after_and_both_are_told() -> None:
    report = reported(judge.judge(window([row()], [row()]), few=None))
    limit = report.as_json()["streams"]["limit"]
    first = sum(ALONE.per_stream_second(0.5).values())
    assert limit["turns_ms"] == pytest.approx([first, first + 2.0])
    assert limit["total_ms"] == pytest.approx(first + 1.0)
    assert f"Before the runs the limit was {first:.1f} ms, after them {first + 2.0:.1f}" in report.markdown()


def test_a_limit_that_was_measured_once_is_said_to_be() -> None:
    """What follows the runs failed."""
    report = reported(judge.judge(window([row()], [row()]), few=None), alone=TURNS[:1])
    assert report.as_json()["streams"]["limit"]["total_ms"] == sum(ALONE.per_stream_second(0.5).values())
    assert "Limit and peers were measured before the runs only." in report.markdown()


def test_peers_of_two_turns_are_averaged_one_by_one() -> None:
    absent = Cost("b", 0.0, 0.0, "not measured: it is not installed")
    turns = [[Cost("a", cpu_s, 10.0, "reads"), absent] for cpu_s in (1.0, 2.0)]
    assert peers.mean(turns) == [Cost("a", 1.5, 10.0, "reads"), absent]


def test_the_film_of_the_flagged_streams_is_described_beside_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(films, "FILMS", (replace(material.ORDINARY, width=128, height=96),))
    flagged = films.flagged("ordinary", tmp_path, 6.0, "open-nsfw")
    digest = hashlib.sha256(Path(flagged.path).read_bytes()).hexdigest()
    assert flagged.sha256 == digest
    assert flagged.gop_s == 2.0
    report = reported(judge.judge(window([row()], [row()]), few=None), flagged)
    told = report.as_json()["streams"]["flagged_material"]
    assert told.keys() >= MATERIAL
    assert told["path"] == Path(flagged.path).name
    assert "### Material: flagged film" in report.markdown()
    assert f"| sha256 | {digest} |" in report.markdown()


def test_a_report_does_not_say_where_its_files_lie_on_one_machine() -> None:
    command = (
        "framewarden bench streams --streams 75 --report '/tmp/my reports' --seconds 600.0 --json /tmp/a"
    )
    report = reported(judge.judge(window([row()], [row()]), few=None), command=command)
    assert report.as_json()["command"] == "framewarden bench streams --streams 75 --seconds 600.0"
    for text in (json.dumps(report.as_json()), report.markdown(), report.html()):
        assert "/tmp/" not in text


def test_of_an_overload_it_is_told_who_was_cut_and_how_far() -> None:
    """Priority 0 has a sample in 10 s and dropped the 8 s between; priority 1 lost nothing."""
    cut = row(gap_s=10.0, gap_worst_s=10.0)
    cut["coverage"] = {"screened_s": 62.0, "late_s": 0.0, "dropped_s": 8.0, "lost_s": 0.0}
    second = row("s002")
    second["coverage"] = second["coverage"] | {"screened_s": 70.0}
    found = judge.judge(window([row(), row("s002")], [cut, second]), few=None)
    assert found.groups == (
        judge.Group(0, 1, 1, 10.0, 10.0, 2.0, 0.0, 8.0, 0.0),
        judge.Group(1, 1, 0, 2.0, 2.0, 10.0, 0.0, 0.0, 0.0),
    )
    assert found.screened == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("machine_s", "dropped", "said"),
    [
        (19.8, {}, "the CPU is full, 1.98 of 2 cores at work, 0.10 of them for the streams; decode takes"),
        (5.0, {"overload": 1}, "while 1.50 of 2 cores were idle, so not for want of CPU; the busiest thread"),
        (18.4, {"overload": 1}, "A promise broke with 1.84 of 2 cores at work, on average: the CPU is so"),
        (1.0, {}, "Nothing stops the next stream yet: 0.10 of 2 cores were at work. At 100.0 ms"),
    ],
)
def test_what_stops_the_next_stream_is_the_cpu_something_else_or_nothing_yet(
    machine_s: float, dropped: dict[str, int], said: str
) -> None:
    after = row(drops=dropped, frames=35)
    found = judge.judge(window([row()], [after], machine_s=machine_s), few=None)
    assert said in judge.stops(found, {"demux": 2.0, "decode": 15.0}, 2)
    nothing = replace(found, samples_a_second=0.0)
    assert "no stream could be carried" in judge.stops(nothing, {"demux": 2.0, "decode": -2.0}, 2)


def test_a_runs_events_tell_each_streams_account_and_the_seconds_lost_in_the_window(tmp_path: Path) -> None:
    def event(kind: str, second: int, **data: Any) -> str:
        stamp = f"2026-11-24T10:00:{second:02}.000Z"
        return json.dumps({"type": f"framewarden.{kind}.v1", "time": stamp, "data": data})

    totals = {"duration_s": 9.0, "screened_s": 5.0, "late_s": 1.0, "dropped_s": 2.0, "lost_s": 1.05}
    where = {"start_s": 5.0, "end_s": 15.1, "start_uncertainty_s": 0.06, "end_uncertainty_s": 1.0}
    lines = [
        event("segment", 1, reason=None, media=where),
        event("segment", 2, reason="ended", media=where),
        event("segment", 3, reason="shutdown", media=where),
        event("coverage", 1, cause="overload", seconds=4.0),
        event("coverage", 5, cause="overload", seconds=2.0),
        event("stream", 6, stream={"id": "s001"}, duration_s=None),
        event("stream", 9, stream={"id": "s001"}, **totals),
    ]
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join([*lines, lines[-1][:30]]))
    start = datetime.fromisoformat("2026-11-24T10:00:00+00:00").timestamp()
    found = said.read(file, start + 3, start + 8)
    assert found.lost == {"overload": 2.0}
    assert found.ended == [Ended(5.0, 15.1, 0.06, 1.0)]
    assert found.accounts["s001"].adds_up
    assert not replace(found.accounts["s001"], lost_s=1.2).adds_up


@pytest.mark.parametrize(
    ("count", "share", "number"), [(38, 0.05, 2), (1, 0.05, 1), (20, 1.0, 20), (3, 0.4, 1)]
)
def test_the_flagged_share_is_spread_and_at_least_one(count: int, share: float, number: int) -> None:
    places = streams.chosen(count, share)
    assert len(places) == number
    assert all(0 <= place < count for place in places)


def finding(count: int, kept: bool) -> Finding:
    promise = Promise("nothing dropped", kept, "nothing was" if kept else "overload 3")
    found = judge.judge(window([row()], [row()]), few=None)
    return replace(found, streams=count, promises=(promise,))


@pytest.mark.parametrize("carried", [1, 17, 37, 38, 61, 75, 100])
@pytest.mark.parametrize("first", [1, 38])
def test_the_limit_is_found_within_three_percent_in_few_tries(first: int, carried: int) -> None:
    tried = streams.climb(lambda count: finding(count, count <= carried), first)
    best, broken = judge.limit(tried)
    assert best is not None
    assert broken is not None
    assert best.streams <= carried < broken.streams
    assert broken.streams - best.streams <= max(1, 0.03 * broken.streams)
    assert len(tried) == len({one.streams for one in tried})


def test_where_the_first_number_breaks_the_next_is_near_it_and_then_further() -> None:
    tried = [one.streams for one in streams.climb(lambda count: finding(count, count <= 20), 42)]
    assert tried[:3] == [42, 33, 22]


def test_a_machine_that_carries_nothing_has_no_limit_to_show() -> None:
    tried = streams.climb(lambda count: finding(count, False), 38)
    best, broken = judge.limit(tried)
    assert best is None
    assert broken is not None
    assert broken.streams == 1


def test_gstreamer_reads_as_many_pictures_as_the_others() -> None:
    words = peers.gstreamer_pipeline(Path("film.mp4"), 2.0, 1800)
    stages = " ".join(words).split(" ! ")
    assert stages[0] == "-q filesrc location=film.mp4"
    assert "identity eos-after=1800" in stages
    assert stages[-2].endswith("framerate=1000/2000")


def test_a_precision_that_the_processor_imitates_is_not_measured() -> None:
    speeds, why = parts.speeds("open-nsfw", "openvino-f16", 1, (1,))
    assert speeds == []
    assert why.startswith("this processor computes ")


# ---- flashes ----------------------------------------------------------------------------------------------


def test_a_pictures_number_survives_encoding_and_the_samplers_gap_is_kept(tmp_path: Path) -> None:
    case = flash.Case("full", "full", 0.4, 25)
    path = flash.film(tmp_path, case.gop, 6.0)
    seen, plan = flash.sampled(path, case, seed=1)
    assert plan == "full"
    assert seen[0] == 0
    assert seen != list(range(0, 150, 10))  # jitter
    steps = [after - before for before, after in pairwise(seen)]
    assert 5 <= min(steps) <= max(steps) <= 10  # pictures of 40 ms: 0.6 x 0.4 s to 0.4 s


def test_a_flash_is_seen_when_a_sample_lies_in_it() -> None:
    starts = np.arange(0, 20)
    hits = flash.hit(np.array([0, 10, 20, 30]), starts, 3)
    assert [int(start) for start in starts[hits]] == [0, 8, 9, 10, 18, 19]


def test_an_adversary_learns_the_worst_phase_and_luck_is_not_taken_for_one() -> None:
    """Of ten phases three are seen: he strikes at one of the seven. Were every phase seen in every second run
    by chance, he would still meet a half."""
    starts = np.arange(0, 200)
    hits = np.stack([flash.hit(np.arange(0, 231, 10), starts, 3)] * 4)
    assert flash.worst_phase(hits, starts % 10) == 0.0
    assert hits.mean() == pytest.approx(0.3)
    chance = np.random.default_rng(1).random((40, 2000)) < 0.5
    assert flash.worst_phase(chance, np.arange(2000) % 10) == pytest.approx(0.5, abs=0.05)


def test_flash_measures_every_plan_and_no_flash_as_long_as_the_gap_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash, "FILM_S", 18.0)
    section = flash_report.section(flash.bench([1.0], runs=2, folder=tmp_path, say=lambda _: None), runs=2)
    plans = {case["case"]["name"]: case["plan"] for case in section.data["cases"]}
    assert plans == {
        "keyframes, all needed": "keyframes",
        "keyframes, some spare": "keyframes",
        "skip": "skip",
        "full": "full",
    }
    for case in section.data["cases"]:
        assert case["worst_gap_s"] <= 1.05
        for recall in case["recalls"]:
            assert recall["expected"] == pytest.approx(min(1.0, recall["seconds"]))
            if recall["seconds"] >= 1.05:
                assert recall["random"] == recall["adversarial"] == 1.0
            else:
                assert recall["random"] == pytest.approx(recall["expected"], abs=0.35)
    needed = section.data["cases"][0]["recalls"]
    assert needed[0]["adversarial"] < needed[0]["random"] + 0.02 < 0.1


# ---- what a stream-second costs, and the films ------------------------------------------------------------


def test_a_film_goes_through_the_real_stages_and_as_few_pictures_as_the_gap_allows_are_converted(
    film: Path,
) -> None:
    """8 s with a keyframe a second: about one of two is needed once the sampler knows their distance."""
    run = growth.through(str(film), 2.0, "open-nsfw")
    assert run.plan == "keyframes"
    assert run.seconds == pytest.approx(8.0, abs=0.05)
    assert 4 <= run.samples <= 7
    assert growth.through(str(film), 0.5, "open-nsfw").plan == "skip"


def test_costs_add_up_and_are_compared_with_the_first() -> None:
    first = growth.Cost("a", "5a", "1x1", 2.0, 3, 4, 5.0, 2.0, "keyframes", 0.5, 1.0, 13.0, 1.0, 5.0)
    costs = [first, replace(first, max_gap_s=1.0), replace(first, film="b", sha256="5b", decode_ms=33.0)]
    section = growth.section(costs, "open-nsfw")
    assert [cost["ms"] for cost in section.data["costs"]] == [20.0, 20.0, 40.0]
    table, films = section.tables
    assert films.rows == [("a", "5a"), ("b", "5b")]
    assert [row[-1] for row in table.rows] == [1.0, 1.0, 2.0]
    assert "demux 1.0, decode 13.0, conversion 1.0, engine 5.0" in section.says[0]


def test_a_flagged_film_shows_the_card_in_its_second_and_third_scene() -> None:
    small = replace(material.ORDINARY, width=64, height=48, grain=0.0)
    card = np.full((48, 64, 3), (10, 200, 10), np.uint8)
    shown = [bool((picture == card).all()) for picture in material.pictures(small, 16.0, card)]
    assert [number for number, is_card in enumerate(shown) if is_card] == list(range(150, 450))
    assert material.shown(600.0) == SHOWN
    assert SHOWN.off_s(5.25, 15.0) == (0.25, 0.0)
    assert SHOWN.off_s(124.0, 134.5) == (1.0, 0.5)


# ---- the report -------------------------------------------------------------------------------------------

BARS = Bars("CPU", "ms", ("a", "b"), [("one", (1.0, 3.0)), ("two & more", (2.0, 0.0))])
LINES = Lines("By number", "streams", "cores", ("cores",), [[(10.0, 0.5), (20.0, 1.0)]])


def rectangles(plot: Bars | Lines) -> list[float]:
    return [float(part.get("width", 0)) for part in ElementTree.fromstring(plot.svg()).iter("rect")]


def stands_alone(page: str, *, plots: int) -> None:
    """Nothing is fetched, and every plot is well-formed."""
    assert not re.search(r"https?://|<script|<link|<img|@import|url\(", page)
    drawn = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawn) == plots
    for svg in drawn:
        ElementTree.fromstring(svg)


def test_a_bar_is_as_long_as_its_value_and_stacked_after_the_one_before() -> None:
    one_a, one_b, two_a, two_b, *_ = rectangles(BARS)
    assert one_b == pytest.approx(3 * one_a)
    assert two_a == pytest.approx(2 * one_a)
    assert two_b == 0


def test_points_are_drawn_in_proportion_from_zero() -> None:
    circles = list(ElementTree.fromstring(LINES.svg()).iter("circle"))
    left = [float(circle.get("cx", 0)) - 50 for circle in circles]
    assert left[1] == pytest.approx(2 * left[0])


def test_a_report_has_the_same_tables_in_markdown_and_on_a_page_that_stands_alone(tmp_path: Path) -> None:
    table = Table(("what", "ms"), [("a | b", 1.234), ("<c>", None)], "Costs")
    section = Section("files", "Files", ["One sentence."], [table], {"a": 1}, [BARS, LINES])
    report = Report(
        "bench files",
        "framewarden bench files",
        "2026-11-23T10:00:00+00:00",
        this_machine(),
        {},
        {},
        [section],
        "60s-my film",
    )
    paths = report.write(tmp_path / "reports")
    assert [path.name for path in paths] == [
        f"bench-files-60s-my-film-2026-11-23.{kind}" for kind in ("json", "md", "html")
    ]
    data, markdown, page = (path.read_text() for path in paths)
    assert json.loads(data)["files"] == {"a": 1}
    again = report.write(tmp_path / "reports")  # the same day: nothing is overwritten
    assert [path.name for path in again] == [f"{path.stem}-2{path.suffix}" for path in paths]
    assert "| what | ms |\n| --- | ---: |\n| a \\| b | 1.23 |\n| <c> | – |\n" in markdown
    assert "<td>a | b</td><td>1.23</td>" in page
    assert "<td>&lt;c&gt;</td><td>–</td>" in page
    stands_alone(page, plots=2)


def test_cells_have_three_digits() -> None:
    cells = (None, "x", 3, 0.123, 12.34, 1234.5)
    assert [shown(cell) for cell in cells] == ["–", "x", "3", "0.12", "12.3", "1234"]

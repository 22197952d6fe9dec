"""The config file: what is accepted, what it means, and how each mistake is named."""

import pickle
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from pipeline import config
from pipeline.config import Config
from pipeline.errors import ConfigError, ModelError
from pipeline.flow.sample import SamplingRules

FULL = """
node: vm-3
state_dir: state
device: cpu
workers: 2
gpus: [0, 1]
log: {format: json, level: debug}
shutdown_s: 8
redis: {url: "rediss://user:${REDIS_PASSWORD}@host:6379/0", tls: {ca: ca.pem}, on_unsafe: refuse}
outbox: {max_bytes: 1000000000, keep_s: 86400}
sources: {schemes: [rtsp, file], hosts: ["*.cams.example"], folders: [clips]}
model: open-nsfw
batch: {max_size: 8, max_wait_ms: 20, stale_s: 1}
sampling: {max_gap_s: 2.0, plan: auto, audit: 0.02, burst_fps: 8, burst_s: 10}
policy: {name: strict, sexual: {open: 0.80, close: 0.60}}
streams:
  - id: cam-7
    url: rtsp://user:${CAM7}@yard.cams.example/stream1
    labels: {site: west, floor: 3}
    priority: 7
    sampling: {max_gap_s: 1.0}
    policy: {sexual: {open: 0.9}}
  - {id: uploads, url: "clips/*.mp4", watch: true}
  - {id: demo, url: clips/demo.mp4, pace: realtime, loop: true, model: [open-nsfw, own/model.yaml]}
"""
ENV = {"REDIS_PASSWORD": "s3cret", "CAM7": "geheim"}


def categories(name: str) -> tuple[str, ...]:
    """The models of these tests."""
    known = {"open-nsfw": ("sexual",), "image-safety-s": ("graphic", "sexual")}
    if name not in known:
        raise ModelError(f"model {name!r} is not known")
    return known[name]


def load(folder: Path, text: str, env: dict[str, str] | None = None, *, check_models: bool = False) -> Config:
    path = folder / "fw.yaml"
    path.write_text(text)
    return config.load(path, env or {}, categories if check_models else None)


def mistakes(
    folder: Path, text: str, env: dict[str, str] | None = None, *, check_models: bool = False
) -> list[str]:
    """The lines of the error that ``text`` gives, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text, env, check_models=check_models)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{folder / 'fw.yaml'}:") for line in lines)
    return [line.removeprefix(f"{folder / 'fw.yaml'}:") for line in lines]


def one_stream(keys: str = "", top: str = "") -> str:
    return f"{top}\nstreams:\n  - {{id: a, url: a.mp4{', ' + keys if keys else ''}}}\n"


def test_a_full_config_is_read_as_it_stands(tmp_path: Path) -> None:
    found = load(tmp_path, FULL, ENV)
    assert (found.node, found.workers, found.gpus, found.shutdown_s) == ("vm-3", 2, (0, 1), 8)
    assert found.redis.url == "rediss://user:s3cret@host:6379/0"
    assert [stream.id for stream in found.streams] == ["cam-7", "uploads", "demo"]
    assert found.streams[0].labels == {"site": "west", "floor": "3"}
    assert found.sampling_of(found.streams[1]) == SamplingRules(max_gap_s=2.0)


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    found = load(tmp_path, FULL, ENV)
    assert found.state_dir == tmp_path / "state"
    assert found.redis.tls.ca == tmp_path / "ca.pem"
    assert found.sources.folders == (tmp_path / "clips",)
    assert found.streams[1].url == str(tmp_path / "clips/*.mp4")
    assert found.streams[2].model == ("open-nsfw", str(tmp_path / "own/model.yaml"))
    assert found.redis_dir() == tmp_path / "state"


def test_all_keys_but_streams_have_defaults(tmp_path: Path) -> None:
    found = load(tmp_path, one_stream())
    assert found.model == ("open-nsfw",)
    assert found.redis.url is None
    assert found.node
    assert found.outbox_limits() == {"max_bytes": 1_000_000_000, "keep_s": 86400}
    rules = found.segment_rules(found.streams[0], "sexual")
    assert (rules.watch, rules.close, rules.open, rules.instant, rules.gap_s) == (0.5, 0.6, 0.8, 0.97, 4.0)


def test_a_key_without_a_value_counts_as_left_out(tmp_path: Path) -> None:
    assert load(tmp_path, one_stream(top="redis:\nsampling: {max_gap_s: }")).sampling.max_gap_s == 2.0


def test_a_streams_own_keys_win_and_the_others_stay(tmp_path: Path) -> None:
    found = load(tmp_path, FULL, ENV)
    first = found.streams[0]
    assert found.sampling_of(first) == SamplingRules(max_gap_s=1.0, plan="auto", audit=0.02)
    rules = found.segment_rules(first, "sexual")
    assert (rules.open, rules.close) == (0.9, 0.6)
    assert rules.gap_s == 2.0  # twice the stream's own max_gap_s
    assert found.segment_rules(found.streams[1], "sexual").open == 0.8


def test_the_policys_hash_follows_the_rules_in_force_and_nothing_else(tmp_path: Path) -> None:
    base = load(tmp_path, one_stream())
    written = load(tmp_path, one_stream(top="policy: {sexual: {open: 0.8, max_s: 120}}"))
    other = load(tmp_path, one_stream(top="policy: {sexual: {open: 0.81}}"))
    own = load(tmp_path, one_stream("policy: {sexual: {open: 0.81}}"))
    hashes = [found.policy_info(found.streams[0]) for found in (base, written, other, own)]
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]
    assert hashes[2] == hashes[3]
    assert hashes[0][0] == "default"
    assert re.fullmatch("[0-9a-f]{64}", hashes[0][1])


def test_only_files_without_loop_and_watch_come_to_an_end(tmp_path: Path) -> None:
    found = load(tmp_path, FULL, ENV)
    assert [stream.ends for stream in found.streams] == [False, False, False]
    assert load(tmp_path, one_stream("pace: realtime")).streams[0].ends


def test_no_repr_shows_a_credential(tmp_path: Path) -> None:
    found = load(tmp_path, FULL, ENV)
    assert "yard.cams.example" in repr(found)
    assert "s3cret" not in repr(found) + str(found)
    assert "geheim" not in repr(found) + str(found)


def test_a_config_survives_the_way_to_a_worker(tmp_path: Path) -> None:
    found = load(tmp_path, FULL, ENV)
    assert pickle.loads(pickle.dumps(found)) == found


def test_a_variable_may_have_a_default_and_a_dollar_be_meant_as_one(tmp_path: Path) -> None:
    text = one_stream('labels: {a: "${NONE:-x}", b: "$${NONE}", c: "$5", d: "${FULL:-x}"}')
    found = load(tmp_path, text, {"FULL": "${NONE}"})
    assert found.streams[0].labels == {"a": "x", "b": "${NONE}", "c": "$5", "d": "${NONE}"}


def test_a_number_may_come_from_a_variable(tmp_path: Path) -> None:
    assert load(tmp_path, one_stream(top='shutdown_s: "${S}"'), {"S": "3.5"}).shutdown_s == 3.5


def test_anchors_and_merged_keys_give_streams_common_settings(tmp_path: Path) -> None:
    text = "streams:\n  - &cam {id: a, url: a.mp4, priority: 9}\n  - {<<: *cam, id: b}\n"
    assert [(stream.id, stream.priority) for stream in load(tmp_path, text).streams] == [("a", 9), ("b", 9)]


MISTAKES = [
    ("sampling: {max_gapp_s: 2}", r"sampling.max_gapp_s: unknown key; .*\(did you mean max_gap_s\?\)"),
    ("devise: cpu", r"devise: unknown key; .*\(did you mean device\?\)"),
    ("policy: {sexual: {opn: 1}}", r"policy.sexual.opn: unknown key; .*\(did you mean open\?\)"),
    ("device: gpuu", r"device: gpuu: auto or cpu or gpu \(did you mean gpu\?\)"),
    ("workers: many", "workers: many: auto or a whole number"),
    ("sampling: {max_gap_s: true}", "sampling.max_gap_s: true: a number, not true or false"),
    ("sampling: {max_gap_s: 0}", "sampling.max_gap_s: 0: a number of at least 0.1"),
    ("sampling: {max_gap_s: .nan}", "sampling.max_gap_s: .nan: a (finite )?number.*"),
    ("sampling: fast", "sampling: fast: a mapping of keys to values"),
    ("redis: {url: 'reddis://h'}", r"redis.url: reddis://h: .*\(did you mean redis\?\)"),
    ("policy: {sexual: {open: 0.5}}", r"policy.sexual.open: 0.5: close \(0.6\) may not be above open .*"),
    ("node: [a]", "node: a list: text"),
    ("- a", "not valid YAML: .*"),
    ("a: !!python/object:os.system x", "not valid YAML: .*"),
]
STREAM_MISTAKES = [
    ("id: a, url: a, prioritty: 2", r"\.prioritty: unknown key; .*\(did you mean priority\?\)"),
    ("id: a, url: a, loop: often", r"\.loop: often: true or false"),
    ("id: a, url: a, priority: 12", r"\.priority: 12: a number of at most 9"),
    ("id: a, url: a, tenant: b/c", r"\.tenant: b/c: letters, digits, dots, .*"),
    ("id: a, url: 'rtps://h/x'", r"\.url: rtps://h/x: .*\(did you mean rtsps\?\)"),
    ("id: a, url: 'rtsp://h:x/'", r"\.url: rtsp://h:x/: .* port; .*"),
    ("id: a, url: 'rtsp:///x'", r"\.url: rtsp:///x: a URL with a host: .*"),
    ("id: a, url: 'file://clips/a.mp4'", r"\.url: .* three slashes: .*"),
    ("url: a.mp4", ": a mapping: the key 'id' is missing"),
    ("id: a, url: 'rtsp://h/', loop: true", r"\.loop: true: only files can loop, .*"),
    ("id: a, url: 'rtsp://h/', pace: asap", r"\.pace: asap: only files have a pace, .*"),
    ("id: a, url: a.mp4, watch: true", r"\.watch: true: only a folder or a glob can be watched; .*"),
    ("id: a, url: a/, watch: true, loop: true", r"\.loop: true: loop and watch do not go together.*"),
    ("id: a, url: a, policy: {sexual: {min_hits: 3}}", r"\.policy.sexual.min_hits: 3: at most window .*"),
]
LIMITS = [
    ("schemes: [rtsp]", "a.mp4", r"a.mp4: sources.schemes allows only rtsp"),
    ("folders: [b]", "a.mp4", r"a.mp4: sources.folders allows only .*/b"),
    ("folders: [b]", "b/../a.mp4", r"b/../a.mp4: sources.folders allows only .*/b"),
    ("hosts: ['*.b.c']", "rtsp://u:pw@b.d/x", r"rtsp://\*\*\*@b.d/x: sources.hosts allows only \*.b.c"),
]


@pytest.mark.parametrize(("text", "said"), MISTAKES)
def test_a_mistake_is_named_with_line_key_value_and_what_is_allowed(
    tmp_path: Path, text: str, said: str
) -> None:
    (line,) = mistakes(tmp_path, f"# a comment\n{one_stream(top=text)}")
    assert re.fullmatch(f"[23]: {said}", line), line


@pytest.mark.parametrize(("keys", "said"), STREAM_MISTAKES)
def test_a_mistake_in_a_stream_is_named_by_its_number(tmp_path: Path, keys: str, said: str) -> None:
    (line,) = mistakes(tmp_path, f"streams:\n  - {{id: first, url: x.mp4}}\n  - {{{keys}}}\n")
    assert re.fullmatch(rf"3: streams\[1\]{said}", line), line


def test_labels_that_no_event_could_carry_are_refused(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, one_stream(f"labels: {{note: {'x' * 30_000}}}"))
    assert line.startswith("3: streams[0].labels: a mapping: stream 'a': id, tenant, url and labels are 30")
    assert line.endswith("an event holds at most 20480: shorten the labels")


@pytest.mark.parametrize(("allowed", "url", "said"), LIMITS)
def test_a_stream_outside_of_sources_is_refused_before_it_is_opened(
    tmp_path: Path, allowed: str, url: str, said: str
) -> None:
    text = f"sources: {{{allowed}}}\nstreams: [{{id: a, url: '{url}'}}]"
    (line,) = mistakes(tmp_path, text)
    assert re.fullmatch(rf"2: streams\[0\].url: {said}", line), line


@pytest.mark.parametrize("text", ["node: a", "streams: []", "streams:"])
def test_a_config_without_streams_says_so(tmp_path: Path, text: str) -> None:
    (line,) = mistakes(tmp_path, text)
    assert "there is nothing to screen" in line


def test_a_key_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    text = "node: a\nnode: b\nstreams: [{id: a, url: a}]"
    assert mistakes(tmp_path, text) == ["2: node: the key stands here twice (first on line 1)"]


def test_an_unset_variable_is_an_error_that_names_it(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, one_stream('labels: {a: "${CAM_PASWORD}"}'), {"CAM_PASSWORD": "x"})
    assert line.startswith("3: streams[0].labels.a: ${CAM_PASWORD}: the variable CAM_PASWORD is not set")
    assert line.endswith("(did you mean CAM_PASSWORD?)")


def test_a_malformed_variable_is_an_error(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, one_stream('labels: {a: "x${9"}'))
    assert "a variable is written ${NAME}" in line


def test_two_streams_of_one_id_are_an_error_that_names_both_lines(tmp_path: Path) -> None:
    text = "streams:\n  - {id: 7, url: a.mp4}\n  - {id: '7', url: b.mp4}\n"
    assert mistakes(tmp_path, text) == [
        "3: streams[1].id: 7: another stream has this id (line 2); ids are unique"
    ]


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "device: gpuu\nshutdown_s: long\nstreams:\n  - {id: a, url: x.mp4}\n  - {id: a, urk: x}\n"
    found = mistakes(tmp_path, text)
    assert [line.partition(":")[0] for line in found] == ["1", "2", "5", "5", "5"]


def test_no_message_shows_a_credential(tmp_path: Path) -> None:
    text = """
redis: {url: "reddis://:hunter2@h"}
streams:
  - {id: a, url: "rtsp://u:hunter2@h:port/x"}
  - {id: b, url: "rtsp:/u:hunter2@h/x", watch: maybe}
  - {id: c, url: "rtsp://u:${PW}@h/x", priority: "${PW}"}
  - {id: d, url: "rtmp://h/app/x?key=hunter2", loop: perhaps, pace: "x:hunter2@h"}
"""
    found = mistakes(tmp_path, text, {"PW": "hunter2"})
    assert len(found) >= 5
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize("content", [b"", b"# nothing\n"])
def test_an_empty_file_is_called_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fw.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"fw.yaml:1: the file is empty"):
        config.load(path, {})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bin.yaml").write_bytes(b"a: \xff")
    for path, said in (
        ("none.yaml", "no such file"),
        (".", "cannot be read"),
        ("bin.yaml", "not a text file"),
    ):
        with pytest.raises(ConfigError, match=said):
            config.load(tmp_path / path, {})


def test_an_alias_inside_what_it_names_is_an_error_and_not_a_hang(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "policy: &a {sexual: *a}\nstreams: [{id: a, url: a.mp4}]\n")
    assert any("an alias may not stand inside what it names" in line for line in found)


def test_an_unknown_model_and_an_unknown_category_are_errors(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, one_stream(top="model: open-nswf"), check_models=True)
    assert line == "1: model: open-nswf: model 'open-nswf' is not known"
    (line,) = mistakes(tmp_path, one_stream(top="policy: {sexuel: {open: 0.9}}"), check_models=True)
    assert line.startswith(
        "1: policy.sexuel: a mapping: no model in use has this category; categories: sexual"
    )
    assert line.endswith("(did you mean sexual?)")
    (line,) = mistakes(tmp_path, one_stream("policy: {graphic: {open: 0.9}}"), check_models=True)
    assert line.startswith("3: streams[0].policy.graphic")
    load(tmp_path, one_stream("policy: {graphic: {open: 0.9}}, model: image-safety-s"), check_models=True)


def test_the_schema_describes_every_key_with_its_default(tmp_path: Path) -> None:
    schema = config.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for part in (schema, *schema["$defs"].values()):
        for name, key in part["properties"].items():
            assert "description" in key or "$ref" in key, name
            assert "default" in key or name in ("id", "url"), name


def test_the_schema_accepts_what_load_accepts_and_refuses_a_misspelt_key(tmp_path: Path) -> None:
    validator = jsonschema.Draft202012Validator(config.schema())
    data = yaml.safe_load(FULL)
    data["streams"][0]["labels"]["floor"] = "3"  # load also takes a number for a label
    validator.validate(data)
    for place, key, value in (
        (data, "devise", "cpu"),
        (data["sampling"], "max_gap_s", 0),
        (data, "workers", "x"),
    ):
        before = place.get(key)
        place[key] = value
        assert not validator.is_valid(data), key
        if before is None:
            del place[key]
        else:
            place[key] = before


def test_screen_gives_each_input_once_under_its_own_name() -> None:
    found = config.screen_config(["a b.mp4", "http://u:pw@h/x", "a b.mp4", "http://v:pw@h/x"])
    assert [stream.id for stream in found.streams] == ["a b.mp4", "http://***@h/x", "http://***@h/x (2)"]
    assert found.streams[0].url == str(Path.cwd() / "a b.mp4")
    assert found.streams[1].url == "http://u:pw@h/x"
    assert not found.remember_files
    assert not pickle.loads(pickle.dumps(found)).remember_files


@pytest.mark.parametrize("text", ["sexual: {open: 0.9}", "policy: {sexual: {open: 0.9}}"])
def test_screen_takes_a_policy_file_with_or_without_the_key(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    found = config.screen_config(["a.mp4"], policy_file=path, max_gap_s=1, models=categories)
    rules = found.segment_rules(found.streams[0], "sexual")
    assert (rules.open, rules.gap_s) == (0.9, 2.0)


def test_a_wrong_policy_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    for text, said in (
        ("sexual: {opn: 1}", "1: sexual.opn: unknown key"),
        ("\ngraphic: {}", "2: graphic: .*no model"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=rf"policy.yaml:{said}"):
            config.screen_config(["a.mp4"], policy_file=path, models=categories)


@pytest.mark.parametrize(
    ("inputs", "options", "said"),
    [
        (["a.mp4"], {"max_gap_s": 0}, "--max-gap: 0: a number of at least 0.1"),
        (["a.mp4"], {"model": ["open-nswf"]}, "--model: model 'open-nswf' is not known"),
        (["foo://u:pw@x"], {}, "INPUT: foo://\\*\\*\\*@x: a URL that starts with one of"),
        ([""], {}, "INPUT: nothing"),
    ],
)
def test_a_wrong_option_of_screen_is_named(inputs: list[str], options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config.screen_config(inputs, models=categories, **options)  # type: ignore[arg-type]


def test_a_name_that_is_not_utf8_becomes_printable() -> None:
    assert config.printable("a\udcff\n.mp4") == "a\\xff\\x0a.mp4"

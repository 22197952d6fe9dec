"""``deploy/``, as far as it can be judged without a container engine: Dockerfiles, example config, page.

Below the rules for Dockerfiles, planted breaches show that each of them can fail."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement

from pipeline.cli.engine import build as engine_build
from tests.fixtures.deploy import (
    DEPLOY,
    DOCKERFILES,
    ROOT,
    STATE,
    Rule,
    copies_what_there_is,
    example,
    images_are_pinned,
    installs_what_is_pinned,
    is_asked_for_its_health,
    keeps_its_state_in_a_volume,
    of,
    read,
    runs_as_nobody_in_particular,
    stages,
    starts_without_a_shell,
    the_driver_gives_what_decoding_needs,
)

RULES: tuple[Rule, ...] = (
    images_are_pinned,
    runs_as_nobody_in_particular,
    is_asked_for_its_health,
    starts_without_a_shell,
    copies_what_there_is,
    installs_what_is_pinned,
    keeps_its_state_in_a_volume,
)


@pytest.mark.parametrize("name", DOCKERFILES)
@pytest.mark.parametrize("rule", RULES)
def test_a_dockerfile_keeps_the_rules(rule: Rule, name: str) -> None:
    assert rule(stages(read(name))) == []


def test_the_gpu_image_asks_the_driver_for_compute_and_video() -> None:
    assert the_driver_gives_what_decoding_needs(stages(read("Dockerfile.gpu"))) == []


@pytest.mark.parametrize("name", DOCKERFILES)
def test_all_that_is_copied_is_sent_to_the_builder_and_nothing_else_is(name: str) -> None:
    lines = [line for line in read(f"{name}.dockerignore").splitlines() if line and line[0] != "#"]
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        word
        for stage in stages(read(name))
        for step in of(stage, "COPY")
        if not step.rest.startswith("--from=")
        for word in step.rest.split()[:-1]
    }
    assert lines[0] == "*"
    assert copied <= sent
    assert all((ROOT / path).exists() for path in sent)


PLANTED: list[tuple[Rule, str, str]] = [
    (images_are_pinned, "python:3.11-slim-bookworm\n", "python:latest\n"),
    (runs_as_nobody_in_particular, "USER 10001:10001", "USER root"),
    (runs_as_nobody_in_particular, "USER 10001:10001\n", ""),
    (runs_as_nobody_in_particular, "USER 10001:10001\n", "USER 10001:10001\nRUN true\n"),
    (is_asked_for_its_health, '"--check", ', ""),
    (is_asked_for_its_health, "--start-period=60s", ""),
    (is_asked_for_its_health, '["framewarden", "status"', '["framewarden", "health"'),
    (starts_without_a_shell, 'ENTRYPOINT ["framewarden"]', "ENTRYPOINT framewarden"),
    (starts_without_a_shell, 'CMD ["run", ', 'CMD ["walk", '),
    (starts_without_a_shell, "STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL"),
    (copies_what_there_is, "COPY engines engines", "COPY engine engines"),
    (installs_what_is_pinned, "--require-hashes ", ""),
    (installs_what_is_pinned, "--no-index --find-links /wheels /dist", "--find-links /wheels /dist"),
    (keeps_its_state_in_a_volume, "VOLUME /var/lib/framewarden", "VOLUME /state"),
]


@pytest.mark.parametrize(("rule", "good", "bad"), PLANTED)
def test_a_planted_breach_is_found(rule: Rule, good: str, bad: str) -> None:
    text = read("Dockerfile.cpu")
    assert good in text
    assert rule(stages(text.replace(good, bad))) != []


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("compute,utility,video", "compute,utility"),
        ("12.6.3-runtime", "12.6.3-devel"),
        ("cuda:12.6.3", "cuda:13.0.0"),
    ],
)
def test_a_gpu_image_that_could_not_decode_is_found(good: str, bad: str) -> None:
    text = read("Dockerfile.gpu")
    assert good in text
    assert the_driver_gives_what_decoding_needs(stages(text.replace(good, bad))) != []


def test_the_gpu_image_holds_all_that_building_its_engine_takes() -> None:
    """The tools of the extra ``build``, but for TensorRT-RTX, and pictures; the page builds with those."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tools = {Requirement(line).name for line in project["optional-dependencies"]["build"]}
    found = stages(read("Dockerfile.gpu"))
    installed = {word for stage in found for step in of(stage, "RUN") for word in step.rest.split()}
    assert {tool for tool in tools if not tool.startswith("tensorrt-rtx")} <= installed
    source, pictures = next(
        step.rest.split() for stage in found for step in of(stage, "COPY") if "cards" in step.rest
    )
    assert len(list((ROOT / source).glob("*.png"))) >= 2
    built = re.search(r"run --rm framewarden (engine build .*\n.*)", read("README.md"))
    assert built is not None
    words = built[1].replace("\\\n", " ").split()
    options = {option for parameter in engine_build.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options
    assert words[words.index("--pictures") + 1] == pictures
    assert words[words.index("--out") + 1].startswith(f"{STATE}/")


def test_the_packages_of_a_card_are_pinned_to_what_the_project_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed = {
        wanted.name.lower(): wanted for wanted in map(Requirement, project["optional-dependencies"]["gpu"])
    }
    lines = [line for line in read("requirements-gpu.txt").splitlines() if line and line[0] != "#"]
    for pin in map(Requirement, lines):
        [exact] = pin.specifier
        assert exact.operator == "=="
        assert exact.version in allowed[pin.name.lower()].specifier
        assert pin.extras == allowed[pin.name.lower()].extras
    assert {Requirement(line).name.lower() for line in lines} >= {
        name for name in allowed if name in ("cupy-cuda12x", "pynvvideocodec", "tensorrt-cu12")
    }


def test_the_example_config_is_right_with_and_without_its_variables() -> None:
    assert example().device == "auto"
    full = example(REDIS_PASSWORD="abc", FRAMEWARDEN_DEVICE="gpu", FRAMEWARDEN_NODE="n1")
    assert (full.device, full.node) == ("gpu", "n1")
    assert full.redis.url == "redis://:abc@redis:6379/0"


def test_the_example_config_keeps_its_state_where_images_and_units_do() -> None:
    assert str(example().state_dir) == STATE


def test_the_page_names_every_file_and_no_other() -> None:
    page = read("README.md")
    named = set(
        re.findall(r"`((?:Dockerfile|compose|config|framewarden|requirements)[\w.-]*\.[\w.-]+)`", page)
    )
    there = {path.name for path in DEPLOY.iterdir() if path.is_file() and path.name != "README.md"} - {
        f"{name}.dockerignore" for name in DOCKERFILES
    }
    assert {name for name in there if f"`{name}`" in page} == there
    assert {name for name in named if not name.endswith(".lock")} <= there

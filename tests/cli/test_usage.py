"""Usage and config errors: exit code 2, one clear line, before anything is opened."""

from pathlib import Path

import pytest

from tests.cli.command import framewarden, process


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["runn", "x.yaml"], "Did you mean 'run'?"),
        (["run", "x.yaml", "--exit-at-edn"], "Did you mean '--exit-at-end'?"),
        (["screen"], "Missing argument 'INPUT...'"),
        (["screen", "a.mp4", "--max-gap", "two"], "'two' is not a valid float"),
        (["run", "x.yaml", "--for", "0"], "0.0 is not in the range x>0"),
        (["events", "--group", "g", "--from", "1"], "--group and --from do not go together"),
        (["events", "x.yaml", "--redis", "redis://h"], "CONFIG.yaml and --redis do not go together"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
    ],
)
def test_a_wrong_command_line_exits_2_and_says_what_is_meant(
    tmp_path: Path, args: list[str], said: str
) -> None:
    found = framewarden(*args, cwd=tmp_path)
    assert (found.code, found.out) == (2, "")
    assert said in found.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["run", "none.yaml"], "framewarden: error: none.yaml: no such file\n"),
        (["events", "none.yaml"], "framewarden: error: none.yaml: no such file\n"),
        (["status", "none.yaml"], "framewarden: error: none.yaml: no such file\n"),
        (["config", "check", "none.yaml"], "framewarden: error: none.yaml: no such file\n"),
        (["screen", "a.mp4", "--policy", "none.yaml"], "framewarden: error: none.yaml: no such file\n"),
        (
            ["screen", "a.mp4", "--max-gap", "-1"],
            "framewarden: error: --max-gap: -1.0: a number of at least 0.1\n",
        ),
    ],
)
def test_a_missing_config_or_a_wrong_value_is_one_line(tmp_path: Path, args: list[str], said: str) -> None:
    found = framewarden(*args, cwd=tmp_path)
    assert (found.code, found.out, found.err) == (2, "", said)


@pytest.mark.parametrize(
    "args", [["screen", "a.mp4", "--model", "open-nswf"], ["engine", "fetch", "open-nswf"]]
)
def test_an_unknown_model_exits_2_and_names_the_known_ones(tmp_path: Path, args: list[str]) -> None:
    found = framewarden(*args, cwd=tmp_path)
    assert found.code == 2
    assert "did you mean open-nsfw?" in found.err
    assert "image-safety-s" in found.err


def test_run_names_every_mistake_of_a_config_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "fw.yaml").write_text(
        "devise: cpu\nmodel: open-nsfw\nstreams:\n"
        "  - {id: a, url: 'rtsp://u:hunter2@h/x', transport: tpc}\n"
        "  - {id: a, url: b.mp4}\n"
    )
    found = framewarden("run", "fw.yaml", cwd=tmp_path)
    assert (found.code, found.out) == (2, "")
    starts = [line.split(": ")[2:4] for line in found.err.splitlines()]
    assert starts == [
        ["fw.yaml:1", "devise"],
        ["fw.yaml:4", "streams[0].transport"],
        ["fw.yaml:5", "streams[1].id"],
    ]
    assert not (tmp_path / "state").exists()


def test_exit_at_end_without_a_file_that_ends_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fw.yaml").write_text(
        "streams: [{id: a, url: a.mp4, loop: true}, {id: b, url: 'rtsp://h/x'}]"
    )
    found = framewarden("run", "fw.yaml", "--exit-at-end", cwd=tmp_path)
    assert (found.code, found.out) == (2, "")
    assert "--exit-at-end: no stream comes to an end" in found.err
    assert not (tmp_path / "state").exists()


def test_an_error_shows_no_traceback_unless_debug_asks_for_it(tmp_path: Path) -> None:
    plain = process("run", "none.yaml", cwd=tmp_path)
    assert (plain.code, plain.err) == (2, "framewarden: error: none.yaml: no such file\n")
    debug = process("--debug", "run", "none.yaml", cwd=tmp_path)
    assert debug.code == 2
    assert "Traceback" in debug.err
    assert debug.err.endswith(plain.err)


def test_help_lists_every_command(tmp_path: Path) -> None:
    found = framewarden("--help", cwd=tmp_path)
    assert found.code == 0
    for name in ("run", "screen", "events", "queue", "status", "doctor", "engine", "config", "completion"):
        assert f"\n  {name} " in found.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(tmp_path: Path, shell: str) -> None:
    found = framewarden("completion", shell, cwd=tmp_path)
    assert found.code == 0
    assert "_FRAMEWARDEN_COMPLETE" in found.out


def test_a_shell_gets_our_commands_and_options_offered(tmp_path: Path) -> None:
    ask = {"_FRAMEWARDEN_COMPLETE": "bash_complete", "COMP_WORDS": "framewarden run --ex", "COMP_CWORD": "2"}
    assert process(cwd=tmp_path, env=ask).out.splitlines() == ["plain,--exit-at-end"]

"""The systemd units of ``deploy/``, parsed by hand, and by systemd where it is installed."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.deploy import (
    BINARY,
    CONFIG,
    STATE,
    UNITS,
    example,
    parses,
    read,
)


def unit(name: str) -> dict[str, list[str]]:
    """``Section.Key`` → its values, in order."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in read(name).splitlines():
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif line and line[0] not in "#;":
            key, equals, value = line.partition("=")
            assert equals, f"{name}: {line}"
            assert section, f"{name}: {line}"
            found.setdefault(f"{section}.{key}", []).append(value)
    return found


def commands(name: str) -> Iterator[list[str]]:
    for key, values in unit(name).items():
        if key.startswith("Service.Exec"):
            for value in values:
                yield shlex.split(value.lstrip("-+!@:"))


@pytest.mark.parametrize("name", UNITS)
def test_the_commands_of_a_unit_are_ours_with_options_that_exist(name: str) -> None:
    for words in commands(name):
        if "framewarden" in words[0]:
            assert words[0] == BINARY
            assert parses(words), words
            assert words[-1] == CONFIG


@pytest.mark.parametrize("name", UNITS)
def test_units_that_a_unit_names_are_there(name: str) -> None:
    keys = ("Unit.OnFailure", "Unit.PartOf", "Unit.Wants", "Unit.After", "Timer.Unit")
    named = {word for key in keys for value in unit(name).get(key, []) for word in value.split()}
    ours = {word for word in named if word.startswith("framewarden")}
    assert ours <= set(UNITS)
    assert named - ours <= {"network-online.target"}


def test_the_service_has_few_rights_and_time_to_end() -> None:
    service = unit("framewarden.service")
    for key, value in (
        ("User", "framewarden"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("Restart", "always"),
        ("RestartPreventExitStatus", "2"),
    ):
        assert service[f"Service.{key}"] == [value]
    assert int(service["Service.TimeoutStopSec"][0]) > example().shutdown_s
    assert f"/var/lib/{service['Service.StateDirectory'][0]}" == STATE


def test_a_hanging_service_is_restarted_by_its_watchdog() -> None:
    """service → timer → check → restart → service."""
    assert "framewarden-check.timer" in unit("framewarden.service")["Unit.Wants"][0]
    timer = unit("framewarden-check.timer")
    assert timer["Timer.Unit"] == ["framewarden-check.service"]
    assert timer["Unit.PartOf"] == ["framewarden.service"]
    assert int(timer["Timer.OnUnitActiveSec"][0]) <= 60
    check = unit("framewarden-check.service")
    assert check["Unit.OnFailure"] == ["framewarden-restart.service"]
    assert "--check" in check["Service.ExecStart"][0]
    assert check["Unit.ConditionPathExists"] == [f"{STATE}/status.json"]
    assert unit("framewarden-restart.service")["Service.ExecStart"][0].endswith(
        "try-restart framewarden.service"
    )


def test_cards_are_opened_to_the_service_by_the_drop_in_only() -> None:
    assert unit("framewarden.service")["Service.PrivateDevices"] == ["yes"]
    drop_in = unit("framewarden-gpu.conf")
    assert drop_in["Service.PrivateDevices"] == ["no"]
    assert any("nvidia-uvm" in value for value in drop_in["Service.DeviceAllow"])


@pytest.fixture
def installed(tmp_path: Path) -> list[str]:
    """The units as they would be installed, on a machine without the program and its user."""
    for name in UNITS:
        text = read(name).replace(BINARY, shutil.which("true") or "/bin/true")
        (tmp_path / name).write_text(re.sub(r"(?m)^(User|Group)=framewarden$", r"\1=root", text))
    return [str(tmp_path / name) for name in UNITS]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_units(installed: list[str]) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", *installed], capture_output=True, text=True, check=False
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if "framewarden" in line]
    assert said == []

"""`graphc doctor` and what it looks at: every problem has one line that says what to do."""
from __future__ import annotations

import ctypes
import json
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from graphc.inspection import doctor
from graphc.inspection.doctor import Fact
from graphc.options import Options
from tests.cli.conftest import Graphc


def test_this_machine_works(graphc: Graphc) -> None:
    told = json.loads(graphc("doctor", "--json").stdout)
    assert told["works"] and not [f for f in told["facts"] if f["broken"]]
    text = graphc("doctor").stdout
    assert [line for line in text.splitlines() if line and line[0] != " "] == [
        "versions", "settings", "processor", "cache", "threads", "devices", "extras", "trial", "problems"]
    assert f"  Python       {'.'.join(map(str, sys.version_info[:3]))}" in text
    assert "  compile and run  works\n" in text


def problems(facts: list[Fact]) -> list[Fact]:
    found = [f for f in facts if f.problem]
    assert all(f.fix and "\n" not in f.fix for f in found)
    return found


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_a_python_that_is_not_supported(version: tuple[int, int]) -> None:
    (one,) = problems(list(doctor.versions(version)))
    assert one.broken and one.fix == "use Python 3.11 to 3.13"


def test_settings(graphc: Graphc, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = list(doctor.variables({"GRAPHC_THREDS": "2", "GRAPHC_LEVEL": "9", "GRAPHC_BACKEND": "interp", "HOME": "x"}))
    assert [f.name for f in facts] == ["GRAPHC_BACKEND", "GRAPHC_LEVEL", "GRAPHC_THREDS"]
    level, unknown = problems(facts)
    assert level.broken and level.problem == "level must be 0, 1 or 2, not 9"
    assert not unknown.broken and unknown.fix == "unset GRAPHC_THREDS, or set GRAPHC_THREADS"
    monkeypatch.setenv("GRAPHC_LEVEL", "9")
    text = graphc("doctor", code=1).stdout
    assert text.endswith("problems\n  broken  level must be 0, 1 or 2, not 9: unset GRAPHC_LEVEL\n")


def test_the_cache_folder(tmp_path: Path) -> None:
    assert not problems(list(doctor.cache(Options(cache_dir=str(tmp_path / "new")))))
    folder = tmp_path / "mine"
    folder.mkdir(mode=0o700)
    assert not problems(list(doctor.cache(Options(cache_dir=str(folder)))))
    folder.chmod(0o755)
    (one,) = problems(list(doctor.cache(Options(cache_dir=str(folder)))))
    assert one.fix == f"chmod 700 {folder}" and not one.broken
    (one,) = problems(list(doctor.cache(Options(cache_dir=""))))
    assert one.fix == "unset GRAPHC_CACHE_DIR"
    file = tmp_path / "file"
    file.write_text("")
    (one,) = problems(list(doctor.cache(Options(cache_dir=str(file)))))
    assert "is not a folder" in one.problem


@pytest.mark.skipif(os.geteuid() == 0, reason="everything is writable for root")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    (one,) = problems(list(doctor.cache(Options(cache_dir=str(tmp_path / "new")))))
    assert "cannot be written" in one.problem


def test_threads_beyond_the_quota(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    for text, wanted in (("max 100000", 0), ("150000 100000", 1), ("1600000 100000", 0), ("odd", 0)):
        quota.write_text(text)
        found = problems(list(doctor.threads(Options(threads=4), quota)))
        assert len(found) == wanted, text
    quota.write_text("150000 100000")
    assert problems(list(doctor.threads(Options(threads=4), quota)))[0].fix == "set GRAPHC_THREADS=1"
    assert not problems(list(doctor.threads(Options(threads=4), tmp_path / "none")))


def test_no_driver() -> None:
    def absent(name: str) -> ctypes.CDLL:
        raise OSError(name)

    facts = list(doctor.devices(absent))
    assert [f.value for f in facts] == ["used", "none: this system has no NVIDIA driver"]


class Driver:
    """NVIDIA's library with `count` devices; failing: the code that it starts with."""

    def __init__(self, count: int, failing: int = 0) -> None:
        self.count, self.failing = count, failing

    def cuInit(self, flags: int) -> int:
        return self.failing

    def cuDeviceGetCount(self, result: Any) -> int:
        result._obj.value = self.count
        return 0

    def cuDeviceGetName(self, text: Any, length: int, number: int) -> int:
        text.value = f"Device {number}".encode()
        return 0


@pytest.mark.parametrize(("driver", "told"), [
    (Driver(2), "Device 0, Device 1: present, not used (programs run on the CPU)"),
    (Driver(0), "none: the driver finds no device (code 0)"),
    (Driver(1, 999), "none: the driver finds no device (code 999)")])
def test_devices_as_the_driver_tells_them(driver: Driver, told: str) -> None:
    assert [f.value for f in doctor.devices(lambda name: driver)] == ["used", told]  # type: ignore[arg-type, return-value]


def test_what_is_looked_for_is_what_the_package_names() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[>=<]", r)[0] for r in requirements}

    assert names(project["dependencies"]) == set(doctor.REQUIRED)
    extras = {name: names(r) for name, r in project["optional-dependencies"].items() if name not in (
        "test", "dev", "bench")}
    assert extras.keys() == doctor.EXTRAS.keys()
    for name, wanted in extras.items():
        assert {distribution for distribution, _ in doctor.EXTRAS[name]} <= wanted, name

"""The cache: atomic, private, self-healing, bounded, shared by processes; old code is never served."""
from __future__ import annotations

import multiprocessing
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from graphc.runtime.cache import Cache, digest, source_digest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a" / "cache"


def fresh(folder: Path | None) -> Cache:
    """A cache as another process sees it: without this one's memory."""
    return Cache(folder)


def test_what_is_put_is_got_in_another_process(folder: Path) -> None:
    key = digest("k")
    Cache(folder).put("kernel", key, b"\0code\xff", {"what": "kernel softmax"})
    assert fresh(folder).get("kernel", key) == b"\0code\xff"
    assert fresh(folder).get("program", key) is None
    entry, = fresh(folder).ls()
    assert (entry.kind, entry.key, entry.note) == ("kernel", key, {"what": "kernel softmax"})
    assert fresh(folder).why(key[:6]) == entry and fresh(folder).why("no") is None
    assert fresh(folder).clear() == 1 and fresh(folder).get("kernel", key) is None


def test_files_are_private(folder: Path) -> None:
    Cache(folder).put("kernel", "k", b"x")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "kernel").stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "kernel" / "k").stat().st_mode) == 0o600
    assert [p.name for p in (folder / "kernel").iterdir()] == ["k"]


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
def test_a_file_open_to_others_is_not_believed(folder: Path, mode: int) -> None:
    Cache(folder).put("kernel", "k", b"good")
    (folder / "kernel" / "k").chmod(mode)
    assert fresh(folder).get("kernel", "k") is None
    assert fresh(folder).obtain("kernel", "k", lambda: b"made") == b"made"
    assert fresh(folder).get("kernel", "k") == b"made"


def test_a_folder_open_to_others_is_not_used(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    store = Cache(folder)
    store.put("kernel", "k", b"x")
    assert store.get("kernel", "k") == b"x" and list(folder.iterdir()) == []


def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    Cache(folder).put("kernel", "k", b"x")
    path = folder / "kernel" / "k"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert fresh(folder).get("kernel", "k") is None
    assert fresh(folder).obtain("kernel", "k", lambda: b"new") == b"new" and not path.is_symlink()


def test_every_corruption_heals(folder: Path) -> None:
    Cache(folder).put("kernel", "k", b"some code")
    path = folder / "kernel" / "k"
    whole = path.read_bytes()
    damaged = [whole[:n] for n in range(0, len(whole), 3)] + [b"", b"x" * 1000, whole + b"x"]
    damaged += [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1:] for i in range(len(whole))]
    for content in damaged:
        path.write_bytes(content)
        assert fresh(folder).get("kernel", "k") is None
        assert fresh(folder).ls() == []
    assert fresh(folder).obtain("kernel", "k", lambda: b"some code") == b"some code"
    assert path.read_bytes() == whole


def test_memory_serves_where_there_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (None, tmp_path / "file" / "cache"):
        store = Cache(place)
        assert store.obtain("kernel", "k", lambda: b"x") == b"x"
        assert store.obtain("kernel", "k", lambda: b"y") == b"x"
        assert (store.hits, store.misses) == (1, 1) and store.ls() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder(folder: Path) -> None:
    Cache(folder).put("kernel", "old", b"old")
    (folder / "kernel").chmod(0o500)
    store = fresh(folder)
    store.put("kernel", "k", b"x")
    assert store.get("kernel", "k") == b"x" and fresh(folder).get("kernel", "k") is None
    assert fresh(folder).get("kernel", "old") == b"old"
    (folder / "kernel").chmod(0o700)


def test_discard(folder: Path) -> None:
    store = Cache(folder)
    store.put("program", "k", b"x")
    store.discard("program", "k")
    store.discard("program", "k")
    assert store.get("program", "k") is None and fresh(folder).get("program", "k") is None


def test_the_least_recently_used_go_first(folder: Path) -> None:
    store = Cache(folder, size_limit=3500)
    for i, used in enumerate((50, 10, 40, 20, 30)):
        store.put("kernel", f"k{i}", bytes(1000))
        os.utime(folder / "kernel" / f"k{i}", (used, used))
    store.evict()
    assert sorted(e.key for e in fresh(folder).ls()) == ["k0", "k2", "k4"]
    fresh(folder).get("kernel", "k4")  # a use long after the last counts
    os.utime(folder / "kernel" / "k0", (1e9, 1e9))
    store.put("kernel", "k9", bytes(1000))
    store.evict()
    assert sorted(e.key for e in fresh(folder).ls()) == ["k0", "k4", "k9"]


def test_keys_tell_parts_apart() -> None:
    assert len({digest("ab", "c"), digest("a", "bc"), digest("abc"), digest("abc", ""), digest(b"abc", b"", b"")}) == 5


def _hammer(folder: Path, number: int) -> None:
    store = Cache(folder, size_limit=60_000)
    for round_ in range(60):
        key = digest(str((round_ * 7 + number) % 25))
        data = store.obtain("kernel", key, lambda key=key: key.encode() * 100)
        assert data == key.encode() * 100
        if round_ % 10 == number:
            store.evict()
        store._memory.clear()


def test_eight_processes_at_once(folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_hammer, args=(folder, n)) for n in range(8)]
    for p in processes:
        p.start()
    for p in processes:
        p.join(60)
    assert [p.exitcode for p in processes] == [0] * 8
    assert not [p for p in (folder / "kernel").iterdir() if p.name.startswith(".")]
    for entry in Cache(folder).ls():
        assert Cache(folder).get("kernel", entry.key) == entry.key.encode() * 100


def test_a_changed_generator_changes_the_key(folder: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "passes").mkdir(parents=True)
    (package / "a.py").write_text("x = 1")
    (package / "passes" / "b.py").write_text("y = 1")
    store = Cache(folder)
    seen = [source_digest(store, package)]
    assert source_digest(fresh(folder), package) == seen[0]
    times = (package / "a.py").stat()
    (package / "a.py").write_text("x = 2")  # same size, and the same time of modification
    os.utime(package / "a.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    seen.append(source_digest(fresh(folder), package))
    (package / "passes" / "b.py").rename(package / "passes" / "c.py")
    seen.append(source_digest(fresh(folder), package))
    (package / "passes" / "d.py").write_text("")
    seen.append(source_digest(fresh(folder), package))
    assert len(set(seen)) == 4
    (package / "a.py").write_text("x = 1")
    (package / "passes" / "d.py").unlink()
    (package / "passes" / "c.py").rename(package / "passes" / "b.py")
    assert source_digest(fresh(folder), package) == seen[0]


def test_a_second_process_compiles_nothing(folder: Path) -> None:
    body = textwrap.dedent("""
        import sys
        from pathlib import Path
        import numpy as np
        from graphc.runtime.cache import Cache
        from graphc.runtime.executor import Executor
        from graphc.runtime.native import native
        from graphc.runtime.program import load_library_program, pack, unpack
        from graphc.runtime.link import link
        from graphc.runtime.variables import Variables
        store = Cache(Path(sys.argv[1]))
        packed = store.get("program", "chain")
        if packed is None:
            from tests.runtime.plans import NAMES, compiled
            from tests.runtime.test_executor import chain
            packed = pack(chain(), compiled().infos, link(compiled().objects, NAMES, "chain.so"))
            store.put("program", "chain", packed)
        plan, infos, code = unpack(packed)
        run = Executor(load_library_program(plan, infos, code), Variables(), native(store), 2)
        x = np.ones((5, 3), np.float32)
        assert (run.run([x])[0] == 4).all()
        print(sorted({"llvmlite", "numba"} & sys.modules.keys()))
    """)
    outputs = [subprocess.run([sys.executable, "-c", body, str(folder)], cwd=ROOT, check=True, capture_output=True,
                              text=True).stdout for _ in range(2)]
    assert outputs == ["['llvmlite']\n", "[]\n"]

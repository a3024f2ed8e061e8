"""The cache of compiled things: bytes by key, in memory and in a private folder.

Owns the folder's layout, its safety and its size.  Knows nothing of what the bytes mean: kernels'
objects ("kernel"), whole programs ("program") and the step driver ("driver") are kinds; of kind "trusted" are empty
entries, whose keys are the digests of saved programs that this user compiled here.

    <folder>/<kind>/<key>      one file: magic, SHA-256 of all that follows, length of the note, note, bytes

The key is a digest of everything that the bytes depend on, so nothing ever needs to be invalidated, only
evicted.  An entry is written beside its place and renamed, so readers see all of it or none, and several
processes may write the same key: the last one wins with equal bytes.  A file that is damaged, foreign or
readable by others counts as absent, and is replaced.
Invariant: the bytes returned are exactly those that were checked, by digest, owner and mode, on one open
descriptor; where the folder cannot be used, everything works from memory.
"""
from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import stat
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from graphc.runtime.forks import tell_of_forks

KINDS = ("kernel", "program", "driver", "sources", "trusted")
SIZE_LIMIT = 1 << 30     # bytes in the folder
MEMORY_LIMIT = 64 << 20  # bytes kept by this process
ABI = 1                  # version of the calling convention, the step table and this layout

_MAGIC = b"graphc1\n"
_DIGEST = 32
_TOUCH_SECONDS = 3600    # how stale an entry's time of use may get
_SWEEP_EVERY = 64        # writes between two looks at the size of the folder


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the cache: kind, key, bytes on disk, time of last use, and the note it was put with."""

    kind: str
    key: str
    size: int
    used: float
    note: dict[str, str]


class Cache:
    """Bytes by (kind, key).  Safe for several threads and processes; never raises for a bad folder."""

    def __init__(self, folder: Path | None, size_limit: int = SIZE_LIMIT) -> None:
        self.folder = folder
        self.size_limit = size_limit
        self.hits = self.misses = 0
        self._memory: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._held = 0
        self._writes = 0
        self._lock = threading.Lock()
        tell_of_forks(self)

    def after_fork(self) -> None:
        """Renew the lock: the thread that held it may not exist here."""
        self._lock = threading.Lock()

    def get(self, kind: str, key: str) -> bytes | None:
        """Return the bytes put under (kind, key), or None."""
        with self._lock:
            found = self._memory.get((kind, key))
            if found is not None:
                self._memory.move_to_end((kind, key))
        if found is None and self.folder is not None:
            read = _read(self.folder / kind / key, touch=True)
            if read is not None:
                found = read[1]
                self._remember(kind, key, found)
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
        return found

    def put(self, kind: str, key: str, data: bytes, note: dict[str, str] | None = None) -> None:
        """Keep `data` under (kind, key), with a note (texts) that says what it is, for `why`."""
        self._remember(kind, key, data)
        if self.folder is None or not _private_folder(self.folder) or not _private_folder(self.folder / kind):
            return
        head = json.dumps(note or {}, sort_keys=True).encode()
        body = len(head).to_bytes(8, "little") + head + data
        try:
            _write(self.folder / kind / key, _MAGIC + hashlib.sha256(body).digest() + body)
        except OSError:  # full, or made read-only meanwhile: memory serves
            return
        with self._lock:
            self._writes += 1
            sweep = self._writes % _SWEEP_EVERY == 1
        if sweep:
            self.evict()

    def obtain(self, kind: str, key: str, make: Callable[[], bytes], note: dict[str, str] | None = None) -> bytes:
        """Return the bytes under (kind, key), made and kept where they are absent."""
        found = self.get(kind, key)
        if found is None:
            found = make()
            self.put(kind, key, found, note)
        return found

    def discard(self, kind: str, key: str) -> None:
        """Drop (kind, key): its bytes turned out to be of no use."""
        with self._lock:
            self._held -= len(self._memory.pop((kind, key), b""))
        if self.folder is not None:
            _unlink(self.folder / kind / key)

    def ls(self) -> list[Entry]:
        """Return the entries of the folder, most recently used first."""
        entries = []
        for kind, path in self._files():
            read = _read(path, touch=False)
            if read is not None:
                note, _, status = read
                entries.append(Entry(kind, path.name, status.st_size, status.st_mtime, note))
        return sorted(entries, key=lambda e: (-e.used, e.kind, e.key))

    def why(self, key: str) -> Entry | None:
        """Return the entry whose key begins with `key`, or None where there is none, or more than one."""
        found = [e for e in self.ls() if e.key.startswith(key)]
        return found[0] if len(found) == 1 else None

    def clear(self) -> int:
        """Remove all entries; return how many files went."""
        with self._lock:
            self._memory.clear()
            self._held = 0
        return sum(_unlink(path) for _, path in self._files())

    def evict(self) -> None:
        """Remove the entries that were not used for longest until the folder fits its limit."""
        files = []
        for _, path in self._files():
            try:
                status = path.stat()
            except OSError:  # another process was faster
                continue
            files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.size_limit:
                break
            _unlink(path)
            total -= size

    def _files(self) -> Iterator[tuple[str, Path]]:
        if self.folder is None:
            return
        for kind in KINDS:
            try:
                names = sorted(os.listdir(self.folder / kind))
            except OSError:
                continue
            for name in names:
                yield kind, self.folder / kind / name

    def _remember(self, kind: str, key: str, data: bytes) -> None:
        with self._lock:
            self._held += len(data) - len(self._memory.pop((kind, key), b""))
            self._memory[kind, key] = data
            while self._held > MEMORY_LIMIT and len(self._memory) > 1:
                _, old = self._memory.popitem(last=False)
                self._held -= len(old)


@cache
def store_in(folder: Path | None) -> Cache:
    """Return this process's cache in `folder` (None: memory only)."""
    return Cache(folder)


# ---------------------------------------------------------------------------------------------
# Files.


def _mine(status: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not stat.S_IMODE(status.st_mode) & 0o077)


def _private_folder(folder: Path) -> bool:
    """Make `folder` where it is absent; return whether it is ours alone and can be used."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _mine(folder.stat()) and os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        return False


def _read(path: Path, touch: bool) -> tuple[dict[str, str], bytes, os.stat_result] | None:
    """Return (note, bytes, status) of one entry where it is whole and private to this user.  touch: this is a use."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not _mine(status):
            return None
        content = file.read()
        if touch and time.time() - status.st_mtime > _TOUCH_SECONDS and os.utime in os.supports_fd:
            os.utime(descriptor)
    start = len(_MAGIC) + _DIGEST
    body = memoryview(content)[start:]
    if content[:len(_MAGIC)] != _MAGIC or hashlib.sha256(body).digest() != content[len(_MAGIC):start]:
        return None
    length = int.from_bytes(body[:8], "little")
    return json.loads(bytes(body[8:8 + length])), bytes(body[8 + length:]), status


def _write(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        _unlink(Path(temporary))
        raise


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True


# ---------------------------------------------------------------------------------------------
# Keys.


def digest(*parts: str | bytes) -> str:
    """Return the key of `parts`: 64 hexadecimal digits; where one part ends and the next begins counts."""
    h = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        h.update(len(raw).to_bytes(8, "little"))
        h.update(raw)
    return h.hexdigest()


def versions() -> str:
    """Return the versions of everything outside graphc that stored bytes depend on, as text."""
    return f"abi={ABI} python={sys.version_info.major}.{sys.version_info.minor} numpy={np.__version__} " \
           f"llvm={_llvm_version()} system={sys.platform}"


@cache
def _llvm_version() -> str:
    """What llvmlite's file of its version says.  Neither it nor importlib.metadata is imported: both are slow."""
    found = importlib.util.find_spec("llvmlite")
    if found is None or found.origin is None:
        return "none"
    return digest(Path(found.origin).with_name("_version.py").read_bytes())[:16]


@cache
def source_digest(store: Cache, root: Path | None = None) -> str:
    """Return a digest of graphc's own source files: what generates code is part of the code's key.

    Reading two megabytes at every start would cost milliseconds, so the digest is kept in `store` under
    the files' sizes and times (of modification and of change, which no tool can set back).  Asked once
    per store: this process runs what it has imported.
    """
    package = Path(__file__).parent.parent if root is None else root
    files = sorted(_python_files(str(package), ""))
    key = digest(str(package), *(text for _, text in files))

    def read() -> bytes:
        return digest(*(part for name, _ in files for part in (name, (package / name).read_bytes()))).encode()

    return store.obtain("sources", key, read, {"what": f"digest of {package}"}).decode()


def _python_files(folder: str, prefix: str) -> Iterator[tuple[str, str]]:
    """The source files under `folder`: name, and a text that changes when the file does."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".py"):
                s = entry.stat()
                name = prefix + entry.name
                yield name, f"{name} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}"
            elif entry.name != "__pycache__" and entry.is_dir():
                yield from _python_files(entry.path, f"{prefix}{entry.name}/")

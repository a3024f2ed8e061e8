"""The container of a saved program (.gcx): a head, a JSON header, and named sections of bytes.

Owns the layout and every check on lengths, places and digests.  Knows nothing of what the sections hold
(docs/saved-programs.md describes both).  Invariants: a content has one form only, so a byte that is changed, moved,
added or taken away is noticed; nothing is read or allocated on the word of a length that was not checked against the
file's size; what was checked is what is used, since the file is read once.

    0    8 bytes   magic: 89 67 63 78 0d 0a 1a 0a
    8    uint32    version of the format
    12   uint32    n, the length of the header
    16   32 bytes  SHA-256 of the header
    48   n bytes   header: JSON, UTF-8, an object; "sections" lists [name, offset, length, SHA-256 in hexadecimal]
         sections  in the order of the list, each at the next multiple of 64 bytes, zeros between; offsets count from
                   the first multiple of 64 after the header; the file ends where the last section ends
"""
from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from graphc.errors import ProgramFileError
from graphc.tensorfile import read_json

MAGIC = b"\x89gcx\r\n\x1a\n"
VERSION = 1
ALIGN = 64
HEADER_LIMIT = 1 << 20
SECTION_LIMIT = 4096
_HEAD = struct.Struct("<8sII32s")
_NAME_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Container:
    """A file that was read and checked.  header: without "sections".  digest: tells the whole content from others."""

    header: Mapping[str, Any]
    sections: Mapping[str, memoryview]
    digest: str


def pack_container(header: Mapping[str, Any], sections: Mapping[str, bytes]) -> tuple[list[bytes], str]:
    """Return the bytes of a file with these sections, in blocks, and its digest."""
    table: list[list[Any]] = []
    blocks: list[bytes] = []
    at = 0
    for name, data in sections.items():
        blocks += [bytes(-at % ALIGN), data]
        at += -at % ALIGN
        table.append([name, at, len(data), hashlib.sha256(data).hexdigest()])
        at += len(data)
    text = json.dumps({**header, "sections": table}, separators=(",", ":"), sort_keys=True).encode()
    if len(text) > HEADER_LIMIT:
        raise ProgramFileError(f"the header of this program takes {len(text)} bytes, {HEADER_LIMIT} are allowed")
    head = _HEAD.pack(MAGIC, VERSION, len(text), hashlib.sha256(text).digest()) + text
    padding = bytes(-len(head) % ALIGN) if table else b""
    return [head, padding, *blocks], hashlib.sha256(head).hexdigest()


def write_file(path: Path, blocks: Iterable[bytes]) -> None:
    """Write `blocks` to `path` whole or not at all, with the permissions that a new file has."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(blocks)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_file(path: Path) -> Container:
    """Return the content of the file `path`.  Raises ProgramFileError saying what is wrong with it, OSError."""
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ProgramFileError(f"{path}: not a regular file")
        try:
            return read_container(file, status.st_size)
        except ProgramFileError as error:
            raise ProgramFileError(f"{path}: {error}") from None
        except MemoryError:
            raise ProgramFileError(f"{path}: its {status.st_size} bytes do not fit into memory") from None


def read_container(file: BinaryIO, size: int) -> Container:
    """Return the content of a file of `size` bytes.  Raises ProgramFileError."""
    head = file.read(_HEAD.size)
    if head[:len(MAGIC)] != MAGIC[:len(head)] or not head:
        raise ProgramFileError("not a saved program: it does not begin as one")
    if len(head) < _HEAD.size:
        raise ProgramFileError(f"cut off: {len(head)} bytes, the head alone has {_HEAD.size}")
    _, version, length, digest = _HEAD.unpack(head)
    if version != VERSION:
        raise ProgramFileError(f"a saved program of version {version}; this graphc reads version {VERSION}"
                               + ("; a newer graphc reads it" if version > VERSION else ""))
    if length > HEADER_LIMIT:
        raise ProgramFileError(f"damaged: a header of {length} bytes, {HEADER_LIMIT} are allowed")
    if _HEAD.size + length > size:
        raise ProgramFileError(f"cut off: {size} bytes, head and header take {_HEAD.size + length}")
    text = file.read(length)
    if hashlib.sha256(text).digest() != digest:
        raise ProgramFileError("damaged or altered: the header's digest does not match")
    header, places, end = _header(text)
    start = _HEAD.size + length
    start += -start % ALIGN if places else 0
    if size != start + end:
        raise ProgramFileError(f"{'cut off' if size < start + end else 'too long'}: {size} bytes, the header tells of "
                               f"{start + end}")
    body = memoryview(file.read(size - _HEAD.size - length))
    if len(body) != size - _HEAD.size - length:
        raise ProgramFileError("cut off while it was read")
    at = start - _HEAD.size - length
    used = 0
    sections: dict[str, memoryview] = {}
    for name, offset, count, wanted in places:
        gap, data = body[used:at + offset], body[at + offset:at + offset + count]
        if any(gap):
            raise ProgramFileError(f"damaged or altered: bytes before section {name!r} are not zero")
        if hashlib.sha256(data).hexdigest() != wanted:
            raise ProgramFileError(f"damaged or altered: the digest of section {name!r} does not match")
        sections[name] = data
        used = at + offset + count
    return Container(header, sections, hashlib.sha256(head + text).hexdigest())


def _header(text: bytes) -> tuple[dict[str, Any], list[tuple[str, int, int, str]], int]:
    """The header without its table, the table, and the bytes that the sections take."""
    try:
        header = read_json(text)
    except ValueError as error:
        raise ProgramFileError(f"the header cannot be read: {error}") from None
    if not isinstance(header, dict) or not isinstance(table := header.pop("sections", None), list):
        raise ProgramFileError("the header does not list sections")
    if len(table) > SECTION_LIMIT:
        raise ProgramFileError(f"{len(table)} sections, {SECTION_LIMIT} are allowed")
    places: list[tuple[str, int, int, str]] = []
    end = 0
    for entry in table:
        match entry:
            case [str(name), int(offset), int(count), str(digest)] if (
                    0 < len(name) <= _NAME_LIMIT and type(offset) is type(count) is int and count >= 0):
                if offset != end + -end % ALIGN:
                    raise ProgramFileError(f"section {name!r} begins at {offset}, its place is {end + -end % ALIGN}")
                if any(name == other for other, *_ in places[-1:]) or name in {n for n, *_ in places}:
                    raise ProgramFileError(f"two sections are called {name!r}")
                places.append((name, offset, count, digest))
                end = offset + count
            case _:
                raise ProgramFileError(f"the header's entry of section {len(places)} cannot be read")
    return header, places, end

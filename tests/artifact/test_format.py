"""The container: what is damaged, cut off, too long, moved or of another version is refused with the reason."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from graphc.artifact.format import HEADER_LIMIT, pack_container, read_container, read_file, write_file
from graphc.errors import ProgramFileError

SECTIONS = {"a": b"some bytes", "empty": b"", "b": bytes(range(256)), "last": b"x"}


def read(data: bytes) -> Any:
    return read_container(io.BytesIO(data), len(data))


def packed(header: Any, sections: dict[str, bytes]) -> tuple[bytes, str]:
    blocks, digest = pack_container(header, sections)
    return b"".join(blocks), digest


def with_header(header: Any, body: bytes = b"", version: int = 1) -> bytes:
    """A file with this header, its digest right."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    head = struct.pack("<8sII32s", b"\x89gcx\r\n\x1a\n", version, len(text), hashlib.sha256(text).digest()) + text
    return head + bytes(-len(head) % 64) + body if body else head


def test_sections_come_back() -> None:
    data, digest = packed({"k": [1, "ä"]}, SECTIONS)
    found = read(data)
    assert found.header == {"k": [1, "ä"]} and found.digest == digest and len(digest) == 64
    assert {name: bytes(s) for name, s in found.sections.items()} == SECTIONS
    assert packed({"k": [1, "ä"]}, SECTIONS) == (data, digest)
    assert read(packed({}, {})[0]).sections == {}


def test_every_byte_counts() -> None:
    data, _ = packed({"k": 1}, SECTIONS)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(ProgramFileError):
            read(bytes(damaged))
        with pytest.raises(ProgramFileError):
            read(data[:at])
    with pytest.raises(ProgramFileError, match="too long"):
        read(data + b"\0")


@pytest.mark.parametrize(("data", "message"), [
    (b"", "not a saved program"),
    (b"\x7fELF" + bytes(100), "not a saved program"),
    (b"\x89gcx\r\n\x1a\n", "cut off: 8 bytes"),
    (b"\x89gcx\n\x1a\n" + bytes(100), "not a saved program"),
    (with_header({}, version=2), "version 2; this graphc reads version 1; a newer graphc reads it"),
    (with_header({}, version=0), "version 0"),
    (with_header([]), "does not list sections"),
    (with_header({}), "does not list sections"),
    (with_header({"sections": {}}), "does not list sections"),
    (with_header(b'{"sections": [], "n": NaN}'), "NaN is not an integer"),
    (with_header(b'{"sections": [], "n": 1.5}'), "1.5 is not an integer"),
    (with_header(b'{"sections": [], "n": 1, "n": 2}'), "'n' stands twice"),
    (with_header(b'{"sections": [], "n": ' + b"9" * 5000 + b"}"), "an integer of 5000 digits"),
    (with_header(b'{"sections": ' + b"[" * 5000 + b"]" * 5000 + b"}"), "nested more than"),
    (with_header(b'{"sections": []} '[:-2]), "cannot be read"),
    (with_header(b'\xff{"sections": []}'), "cannot be read"),
    (with_header({"sections": [["a", 0, 2**62, ""]]}), "cut off"),
    (with_header({"sections": [["a", 0, -1, ""]]}), "entry of section 0"),
    (with_header({"sections": [["a", True, 0, ""]]}), "entry of section 0"),
    (with_header({"sections": [["a", 64, 0, ""]]}), "begins at 64, its place is 0"),
    (with_header({"sections": [["", 0, 0, ""]]}), "entry of section 0"),
    (with_header({"sections": [["a", 0, 1, ""], ["b", 0, 1, ""]]}), "'b' begins at 0, its place is 64"),
    (with_header({"sections": [["a", 0, 0, ""], ["a", 0, 0, ""]]}), "two sections are called 'a'"),
    (with_header({"sections": [["a", 0, 1, "00"]]}, b"x"), "digest of section 'a'"),
    (with_header({"sections": [[str(i), 0, 0, ""] for i in range(5000)]}), "5000 sections"),
])
def test_what_is_wrong_is_told(data: bytes, message: str) -> None:
    with pytest.raises(ProgramFileError, match=message):
        read(data)


def test_lengths_are_not_believed() -> None:
    head = struct.pack("<8sII32s", b"\x89gcx\r\n\x1a\n", 1, 2**32 - 1, bytes(32))
    with pytest.raises(ProgramFileError, match=f"{HEADER_LIMIT} are allowed"):
        read(head)
    head = struct.pack("<8sII32s", b"\x89gcx\r\n\x1a\n", 1, HEADER_LIMIT, bytes(32))
    with pytest.raises(ProgramFileError, match="cut off"):
        read(head)


def test_bytes_between_sections_are_zero() -> None:
    data, _ = packed({}, {"a": b"x", "b": b"y"})
    at = len(data) - 11
    with pytest.raises(ProgramFileError, match="bytes before section 'b' are not zero"):
        read(data[:at] + b"!" + data[at + 1:])


def test_a_header_that_no_reader_takes_is_not_written() -> None:
    with pytest.raises(ProgramFileError, match="header of this program takes"):
        pack_container({"k": "x" * HEADER_LIMIT}, {})


def test_files(tmp_path: Path) -> None:
    data, digest = packed({}, SECTIONS)
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "p.gcx", [data[:100], data[100:]])
    finally:
        os.umask(before)
    assert read_file(tmp_path / "p.gcx").digest == digest
    assert (tmp_path / "p.gcx").stat().st_mode & 0o777 == 0o640 and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "absent.gcx")
    with pytest.raises(OSError):
        read_file(tmp_path)
    (tmp_path / "short.gcx").write_bytes(data[:-1])
    with pytest.raises(ProgramFileError, match=r"short.gcx: cut off"):
        read_file(tmp_path / "short.gcx")
    with pytest.raises(ProgramFileError, match="not a regular file"):
        read_file(Path("/dev/null"))

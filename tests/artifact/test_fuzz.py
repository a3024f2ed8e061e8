"""10,000 mutated files: an error that says why, or a correct program; never a crash, never memory without a limit.

Files as an attacker makes them have right digests, so the mutations of headers, arrays and IR are repaired; plans and
machine code need no look, since nothing reads them from a file that is not trusted.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as tf
from graphc.artifact.format import read_container
from graphc.artifact.load import read_contents
from graphc.artifact.recompile import read_function
from graphc.artifact.save import save
from graphc.errors import GraphcError, InternalError, ProgramFileError
from tests.artifact.programs import Reference, kept, linear, same

MEMORY = 256 << 20  # what all of it may take
ODD: list[Any] = [None, True, False, -1, 0, 1, 2, 7, 2**31, 2**63 - 1, 2**63, 2**64, 10**19, "", "x", "float32", "ir/0",
                  "weights", "left", [], [[]], {}, {"a": 1}, [None], [1, 2], "é\u0000", "../../etc", 1.5, float("nan")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHC_CACHE_DIR", str(folder / "cache"))
        save(folder / "p.gcx", linear(), targets=("x86-64-v2",))
    return (folder / "p.gcx").read_bytes()


def examine(data: bytes) -> None:
    """Everything that is done with an untrusted file but compiling it."""
    contents = read_contents(read_container(io.BytesIO(data), len(data)))
    for number in range(len(contents.header.variants)):
        read_function(contents.sections[f"ir/{number}"])


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def attack(seed: int, count: int, mutate: Callable[[random.Random], bytes]) -> list[bytes]:
    """Examine `count` mutated files; those that were accepted."""
    rng = random.Random(seed)
    accepted, before = [], peak()
    for i in range(count):
        data = mutate(rng)
        try:
            examine(data)
        except ProgramFileError as error:
            assert str(error), f"seed {seed}, file {i}"
        except BaseException as error:
            raise AssertionError(f"seed {seed}, file {i}: {error!r}") from error
        else:
            accepted.append(data)
    assert peak() - before < MEMORY, f"seed {seed}"
    return accepted


# -- mutations --------------------------------------------------------------------------------------------------------


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut, doubled, moved or made up."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    match rng.randrange(7):
        case 0:
            out = bytearray(data)
            for _ in range(rng.randint(1, 4)):
                out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
            return bytes(out)
        case 1:
            return data[:a]
        case 2:
            return data[:a] + data[b:]
        case 3:
            return data[:b] + data[a:]
        case 4:
            return data[:a] + rng.randbytes(b - a) + data[b:]
        case 5:
            return data[:a] + rng.randbytes(rng.randint(1, 40)) + data[a:]
    at = rng.randrange(64)
    return data[:at] + struct.pack("<Q", rng.choice((0, 1, 2**16, 2**31, 2**32 - 1, 2**64 - 1))) + data[at + 8:]


def taken_apart(data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The header and the sections of a good file."""
    length = struct.unpack_from("<I", data, 12)[0]
    header = json.loads(data[48:48 + length])
    start = -(-(48 + length) // 64) * 64
    return header, {name: data[start + at:start + at + n] for name, at, n, _ in header.pop("sections")}


def put_together(header: Any, sections: dict[str, bytes]) -> bytes:
    """A file with digests that are right, whatever it holds."""
    table, body = [], b""
    for name, section in sections.items():
        body += bytes(-len(body) % 64)
        table.append([name, len(body), len(section), hashlib.sha256(section).hexdigest()])
        body += section
    if isinstance(header, dict):
        header = {**header, "sections": header.get("sections", table)}
    text = json.dumps(header).encode()
    head = struct.pack("<8sII32s", b"\x89gcx\r\n\x1a\n", 1, len(text), hashlib.sha256(text).digest()) + text
    return head + bytes(-len(head) % 64) + body


def mutated_json(value: Any, rng: random.Random) -> Any:
    """JSON with one part replaced, dropped, doubled or moved."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        name = rng.choice(list(value))
        match rng.randrange(8):
            case 0:
                return {k: v for k, v in value.items() if k != name}
            case 1:
                return {**value, rng.choice(("x", "graphc", name + "_", "")): rng.choice(ODD)}
        return {**value, name: mutated_json(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        match rng.randrange(8):
            case 0:
                return value[:at] + value[at + 1:]
            case 1:
                return [*value, value[at]]
            case 2:
                return [*value[:at], rng.choice(ODD), *value[at:]]
        return [*value[:at], mutated_json(value[at], rng), *value[at + 1:]]
    if isinstance(value, str) and value and rng.random() < 0.5:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice(("", "x", "0", ":", "\n", value)) + value[at + 1:]
    return rng.choice(ODD)


def mutated_arrays(section: bytes, rng: random.Random) -> bytes:
    """Arrays whose header says other things than their bytes."""
    if rng.random() < 0.3:
        return damaged(section, rng)
    length = int.from_bytes(section[:8], "little")
    text = json.dumps(mutated_json(json.loads(section[8:8 + length]), rng)).encode()
    return len(text).to_bytes(8, "little") + text + section[8 + length:]


WORDS = ("%x", "%0", "%nothing", "N", "x_0", "0", "1", "-1", "99999999999999999999", "9" * 120, "float32", "bool",
         "float32[4]", "(", ")", "[", "]", "{", "}", ",", "=", "array float32[1000000000000] all 0.0", "none", "true",
         "inf", "nan", '"',
         '"text"', "MatMul", "Softmax", "Print(%x)", "Const", "Loop", "@main", "func @g() { return }", "// 0", "* x_0",
         "source x_0 = %x.axis(9)", "assume 1 == 2 \"m\" at \"y\"", "from \"y\"", "python \"f\"", "transpose_a=true",
         "num=1000000000", "Unpack(%x) {num=1000000000}", "host<string>", "updates %w")


def mutated_text(section: bytes, rng: random.Random) -> bytes:
    """IR with words changed, dropped, doubled or strange."""
    words = section.decode().replace("(", " ( ").replace(",", " , ").split(" ")
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(words))
        match rng.randrange(4):
            case 0:
                del words[at]
            case 1:
                words.insert(at, rng.choice(WORDS))
            case 2:
                words[at] = rng.choice(words)
            case 3:
                words[at] = rng.choice(WORDS)
    return " ".join(words).encode()


# -- tests ------------------------------------------------------------------------------------------------------------


def test_4000_damaged_files_are_all_refused(whole: bytes) -> None:
    assert [d for d in attack(random.randrange(2**32), 4000, lambda rng: damaged(whole, rng)) if d != whole] == []


def test_3000_headers_that_say_other_things(whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header, sections = taken_apart(whole)
    assert put_together(header, sections)[-100:] == whole[-100:]

    def mutate(rng: random.Random) -> bytes:
        changed = mutated_json({**header, "sections": json.loads(whole[48:48 + struct.unpack_from("<I", whole, 12)[0]])
                                ["sections"]}, rng)
        return put_together(changed, sections)

    seed = random.randrange(2**32)
    accepted = attack(seed, 3000, mutate)
    assert accepted  # the text of a version, for example, may be any
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    run_them(accepted[:60], tmp_path, seed)


def run_them(files: list[bytes], folder: Path, seed: int) -> None:
    """Load each and call it: its results are right, or an error of graphc says why not."""
    x = np.random.default_rng(seed).standard_normal((5, 4)).astype(np.float32)
    for i, data in enumerate(files):
        (folder / "m.gcx").write_bytes(data)
        try:
            program = tf.load(folder / "m.gcx")
            assert program.origin.startswith("compiled again"), f"seed {seed}, file {i}: its code was not trusted"
            result = program(**{p.name: x for p in program.signature.inputs})
        except GraphcError:
            continue
        if not program.signature.outputs:
            assert result is None
            continue
        weights = program.variables
        wanted = x.astype(np.float64) @ weights["w"] + weights["b"]
        assert np.allclose(result, wanted, rtol=1e-5, atol=1e-5), f"seed {seed}, file {i}"


def test_1500_weights_that_are_not_what_they_say(whole: bytes) -> None:
    header, sections = taken_apart(whole)
    attack(random.randrange(2**32), 1500, lambda rng: put_together(
        header, {**sections, "weights": mutated_arrays(sections["weights"], rng)}))


def test_1500_texts_of_ir(whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header, sections = taken_apart(whole)
    seed = random.randrange(2**32)
    accepted = attack(seed, 1500, lambda rng: put_together(
        header, {**sections, "ir/0": mutated_text(sections["ir/0"], rng)}))
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    for data in accepted[:15]:  # compiled and run: valid IR, whatever it computes now
        (tmp_path / "m.gcx").write_bytes(data)
        try:
            program = tf.load(tmp_path / "m.gcx")
            program(x=np.ones((2, 4), np.float32))
        except GraphcError as error:
            assert str(error), f"seed {seed}"


def test_a_variant_that_is_another_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    save(tmp_path / "p.gcx", kept(), targets=())
    header, sections = taken_apart((tmp_path / "p.gcx").read_bytes())
    (tmp_path / "p.gcx").write_bytes(put_together(header, {**sections, "ir/1": sections["ir/0"]}))
    program = tf.load(tmp_path / "p.gcx")
    with pytest.raises(InternalError, match="does not run where it is"):
        program(x=np.ones((1, 4)), y=np.ones((3, 3)))


def test_an_untouched_file_is_a_correct_program(whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    header, sections = taken_apart(whole)
    (tmp_path / "m.gcx").write_bytes(put_together(header, sections))
    examine(put_together(header, sections))
    model = linear()
    save(tmp_path / "p.gcx", model)
    x = np.ones((2, 4), np.float32)
    assert same(tf.load(tmp_path / "p.gcx")(x=x), Reference(model)({"x": x})["y"])
    assert tf.load(tmp_path / "m.gcx")(x=x).shape == (2, 3)

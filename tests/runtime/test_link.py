"""The linker: what it makes loads, runs, is protected as it should be, and what it cannot do it refuses."""
from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from graphc.runtime.link import LinkError, can_link, link, load, load_library, load_with_llvm
from graphc.runtime.native import compile_object
from tests.runtime.plans import NAMES, compiled

pytestmark = pytest.mark.skipif(not can_link(), reason="links for Linux on x86-64")

FIRST = """
@table = constant [3 x ptr] [ptr @three, ptr @four, ptr @other]  ; addresses known only when loaded
@counter = global i64 40
@zeros = internal global [1000 x i64] zeroinitializer
@wide = internal constant <4 x float> <float 1.5, float 2.5, float 3.5, float 4.5>, align 64
declare i64 @other(i64)
declare ptr @memcpy(ptr, ptr, i64)
declare ptr @memset(ptr, i32, i64)
define i64 @three(i64 %x) {
  %y = mul i64 %x, 3
  ret i64 %y
}
define i64 @four(i64 %x) {
  %y = mul i64 %x, 4
  ret i64 %y
}
define i64 @pick(i64 %which, i64 %x) {
  %p = getelementptr [3 x ptr], ptr @table, i64 0, i64 %which
  %f = load ptr, ptr %p
  %y = call i64 %f(i64 %x)
  ret i64 %y
}
define i64 @count() {
  %c = load i64, ptr @counter
  %d = add i64 %c, 1
  store i64 %d, ptr @counter
  %z = getelementptr i64, ptr @zeros, i64 %d
  %v = load i64, ptr %z
  store i64 %d, ptr %z
  %s = add i64 %d, %v
  ret i64 %s
}
define i64 @copied(ptr %to, ptr %from, i64 %n) {
  %a = call ptr @memset(ptr %to, i32 7, i64 %n)
  %half = udiv i64 %n, 2
  %b = call ptr @memcpy(ptr %to, ptr %from, i64 %half)
  %r = ptrtoint ptr %b to i64
  ret i64 %r
}
define float @lane(i64 %i) {
  %v = load <4 x float>, ptr @wide, align 64
  %x = extractelement <4 x float> %v, i64 %i
  ret float %x
}
define i64 @chosen(i64 %x) {
  switch i64 %x, label %d [i64 0, label %a  i64 1, label %b  i64 2, label %c  i64 3, label %e  i64 4, label %f]
a: ret i64 10
b: ret i64 17
c: ret i64 11
e: ret i64 99
f: ret i64 3
d: ret i64 -1
}
"""
SECOND = """
declare i64 @four(i64)
@counter = external global i64
define i64 @other(i64 %x) {
  %c = load i64, ptr @counter
  %y = call i64 @four(i64 %x)
  %z = add i64 %y, %c
  ret i64 %z
}
"""
EXPORTS = ("three", "pick", "count", "copied", "lane", "other", "counter", "chosen")


@pytest.fixture(scope="module")
def objects() -> list[bytes]:
    return [compile_object(FIRST, "first"), compile_object(SECOND, "second")]


def function(address: int, *kinds: object) -> ctypes._CFuncPtr:
    return ctypes.CFUNCTYPE(*kinds)(address)  # type: ignore[arg-type]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("way", ["library", "llvm"])
def test_several_objects_become_one_library(objects: Sequence[bytes], order: Sequence[int], way: str) -> None:
    images = [objects[i] for i in order]
    code = load_library(link(images, EXPORTS, "t.so"), EXPORTS) if way == "library" else load_with_llvm(images, EXPORTS)
    assert code.way == way
    at, i64 = code.addresses, ctypes.c_int64
    pick, count = function(at["pick"], i64, i64, i64), function(at["count"], i64)
    assert [pick(k, 5) for k in range(3)] == [15, 20, 60]
    assert ctypes.c_int64.from_address(at["counter"]).value == 40
    assert count() == 41 and count() == 42 and pick(2, 5) == 62
    source, target = ctypes.create_string_buffer(b"abcdefgh", 8), ctypes.create_string_buffer(8)
    function(at["copied"], i64, ctypes.c_void_p, ctypes.c_void_p, i64)(target, source, 8)
    assert target.raw == b"abcd\7\7\7\7"
    assert [function(at["lane"], ctypes.c_float, i64)(k) for k in range(4)] == [1.5, 2.5, 3.5, 4.5]
    assert [function(at["chosen"], i64, i64)(k) for k in range(6)] == [10, 17, 11, 99, 3, -1]


def test_libraries_loaded_one_after_another_are_different(objects: Sequence[bytes]) -> None:
    """The system's loader takes equal names for the same library, and descriptors are used again."""
    found = []
    for k in range(40):
        text = f"define i64 @value() {{\n  ret i64 {k}\n}}"
        code = load([compile_object(text, "m")], ["value"], "same-name.so")
        found.append((function(code.addresses["value"], ctypes.c_int64), k))
    assert all(f() == k for f, k in found)


def test_raw_data_and_code_have_names(objects: Sequence[bytes]) -> None:
    text = """@numbers = external constant i8
    declare i64 @answer()
    define i64 @sum() {
      %a = load i64, ptr @numbers, align 64
      %b = call i64 @answer()
      %c = add i64 %a, %b
      ret i64 %c
    }"""
    data = {"numbers": (40).to_bytes(8, "little"), "nothing": b"", "more": bytes(100)}
    code = {"answer": bytes.fromhex("b802000000c3")}  # mov eax, 2; ret
    image = link([compile_object(text, "m")], ["sum", "numbers", "more"], "t.so", data=data, code=code)
    loaded = load_library(image, ["sum", "numbers", "more"])
    assert function(loaded.addresses["sum"], ctypes.c_int64)() == 42
    assert loaded.addresses["numbers"] % 64 == loaded.addresses["more"] % 64 == 0
    with pytest.raises(LinkError, match="numbers is defined twice"):
        link([compile_object(text, "m")], ["sum"], "t.so", data=data, code={**code, "numbers": b""})


def test_the_same_objects_give_the_same_bytes(objects: Sequence[bytes]) -> None:
    assert link(objects, EXPORTS, "t.so") == link(objects, EXPORTS, "t.so")


def test_no_segment_is_writable_and_executable_and_constants_become_read_only(objects: Sequence[bytes]) -> None:
    code = load_library(link(objects, (*EXPORTS, "table"), "t.so"), (*EXPORTS, "table"))
    found: dict[str, str] = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(x, 16) for x in line.split()[0].split("-"))
        for name, address in code.addresses.items():
            if start <= address < end:
                found[name] = line.split()[1]
    assert found["pick"] == "r-xp" and found["counter"] == "rw-p" and found["table"] == "r--p"


def test_what_cannot_be_linked_is_refused(objects: Sequence[bytes]) -> None:
    def refuse(message: str, *texts: str, exports: Sequence[str] = ()) -> None:
        with pytest.raises(LinkError, match=message):
            link([compile_object(t, "m") for t in texts], exports, "t.so")

    stranger = "declare i64 @expf(i64)\ndefine i64 @f() {\n  %a = call i64 @expf(i64 1)\n  ret i64 %a\n}"
    refuse("undefined symbols: expf", stranger)
    one = "define void @f() {\n  ret void\n}"
    refuse("f is defined twice", one, one)
    refuse("undefined symbols: g", one, exports=["g"])
    refuse("kernels cannot have", "@t = thread_local global i64 3\ndefine ptr @f() {\n  ret ptr @t\n}")
    with pytest.raises(LinkError, match="not a relocatable ELF object"):
        link([b"MZ" + bytes(100)], [], "t.so")
    with pytest.raises(LinkError, match="not a relocatable ELF object"):
        link([link(objects, EXPORTS, "t.so")], [], "t.so")


def test_kernels_link_and_nothing_is_left_undefined() -> None:
    image = link(compiled().objects, NAMES, "kernels.so", imports=())
    assert set(load_library(image, NAMES).addresses) == set(NAMES)


@pytest.mark.skipif(not (shutil.which("cc") and shutil.which("readelf")), reason="needs a C compiler and binutils")
def test_a_c_program_links_against_the_library(objects: Sequence[bytes], tmp_path: Path) -> None:
    (tmp_path / "libt.so").write_bytes(link(objects, EXPORTS, "libt.so"))
    (tmp_path / "main.c").write_text(
        "long pick(long, long); extern long counter; int main(void) { return pick(2, 5) == 20 + counter ? 0 : 1; }")
    subprocess.run(["cc", "main.c", "-o", "main", "-L.", "-lt", "-Wl,-rpath,."], cwd=tmp_path, check=True)
    subprocess.run(["./main"], cwd=tmp_path, check=True)
    text = subprocess.run(["readelf", "-W", "-a", "libt.so"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "GNU_RELRO" in text.stdout and "RWE" not in text.stdout and not text.stderr


def test_loading_needs_no_llvm(objects: Sequence[bytes], tmp_path: Path) -> None:
    (tmp_path / "t.so").write_bytes(link(objects, EXPORTS, "t.so"))
    body = ("import sys; from graphc.runtime.link import load_library; from pathlib import Path;"
            "code = load_library(Path(sys.argv[1]).read_bytes(), ['three']);"
            "assert not {'llvmlite', 'numba'} & sys.modules.keys(); print(code.way)")
    root = Path(__file__).resolve().parent.parent.parent
    done = subprocess.run([sys.executable, "-c", body, str(tmp_path / "t.so")], check=True, capture_output=True,
                          text=True, cwd=root)
    assert done.stdout == "library\n"

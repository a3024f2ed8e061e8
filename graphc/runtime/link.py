"""A linker: relocatable objects -> one shared library, and machine code -> addresses in this process.

Owns the part of ELF for x86-64 that compiled kernels need.  Knows nothing of kernels.  With it a process
that finds its program in the cache needs neither LLVM nor any tool of the system.

`link` lays the library out in three segments, none of them writable and executable at once,

    R    headers, symbol table, strings, hash table, relocations; read-only data
    RX   code; one stub per imported function
    RW   dynamic section, addresses of imports, relocated constants (read-only after loading: RELRO);
         then data and zeroed data

and resolves everything but imports, which are bound by the system's loader when it loads the library.
Unwind tables are dropped: no exception ever passes through a kernel.  Not supported, and refused: thread
locals, initialisers, relocations in code or read-only data that are not known before loading.
Invariant: the same objects give the same bytes.

Sources: System V Application Binary Interface, AMD64 supplement 1.0, chapter 4 (relocations); generic
ABI, chapters 4 and 5 (object files, dynamic linking).
"""
from __future__ import annotations

import ctypes
import itertools
import os
import struct
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from graphc.errors import BackendError

PAGE = 4096
LIBC = "libc.so.6"

_PROGBITS, _SYMTAB, _STRTAB, _RELA, _HASH, _DYNAMIC, _NOBITS, _DYNSYM = 1, 2, 3, 4, 5, 6, 8, 11
_UNWIND, _INIT_ARRAY, _FINI_ARRAY = 0x70000001, 14, 15
_WRITE, _ALLOC, _EXECUTE, _THREAD_LOCAL = 1, 2, 4, 0x400
_UNDEFINED, _RESERVED = 0, 0xFF00
_GLOBAL = 0x10

_R_64, _R_PC32, _R_PLT32, _R_GLOB_DAT, _R_RELATIVE, _R_GOTPCREL = 1, 2, 4, 6, 8, 9
_R_PC64, _R_GOTPCRELX, _R_REX_GOTPCRELX = 24, 41, 42


class LinkError(BackendError):
    """Objects cannot be linked; the message says what in them is not supported."""


class _Reloc(NamedTuple):
    offset: int
    kind: int
    symbol: int
    addend: int


@dataclass(slots=True)
class _Section:
    name: str
    kind: int
    flags: int
    data: bytes
    size: int
    align: int
    relocs: list[_Reloc] = field(default_factory=list)
    address: int = -1


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    info: int
    section: int
    value: int
    size: int

    @property
    def is_local(self) -> bool:
        return self.info >> 4 == 0


@dataclass(frozen=True, slots=True)
class _Object:
    sections: dict[int, _Section]
    symbols: list[_Symbol]


def _align(position: int, to: int) -> int:
    return -(-position // to) * to


def _string(table: bytes, at: int) -> str:
    return table[at:table.index(b"\0", at)].decode()


def _parse(image: bytes) -> _Object:
    """Read one relocatable object.  Raises LinkError."""
    if image[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<HH", image, 16) != (1, 62):
        raise LinkError("not a relocatable ELF object for x86-64")
    table, = struct.unpack_from("<Q", image, 40)
    entry, count, names_at = struct.unpack_from("<HHH", image, 58)
    raw = [struct.unpack_from("<IIQQQQIIQQ", image, table + entry * i) for i in range(count)]

    def body(i: int) -> bytes:
        return b"" if raw[i][1] == _NOBITS else image[raw[i][4]:raw[i][4] + raw[i][5]]

    names = body(names_at)
    sections: dict[int, _Section] = {}
    symbols: list[_Symbol] = []
    for i, (name, kind, flags, _, _, size, link, _, align, _) in enumerate(raw):
        if kind == _SYMTAB:
            strings = body(link)
            symbols = [_Symbol(_string(strings, s[0]), s[1], s[3], s[4], s[5])
                       for s in struct.iter_unpack("<IBBHQQ", body(i))]
        elif flags & _ALLOC and kind != _UNWIND and not _string(names, name).startswith(".eh_frame"):
            title = _string(names, name)
            if flags & _THREAD_LOCAL or kind in (_INIT_ARRAY, _FINI_ARRAY):
                raise LinkError(f"section {title} is of a kind that kernels cannot have")
            sections[i] = _Section(title, kind, flags, body(i), size, max(align, 1))
    for i, (_, kind, _, _, _, _, _, target, _, _) in enumerate(raw):
        if kind == _RELA and target in sections:
            sections[target].relocs = [_Reloc(at, info & 0xFFFFFFFF, info >> 32, addend)
                                       for at, info, addend in struct.iter_unpack("<QQq", body(i))]
    return _Object(sections, symbols)


def _raw(contents: Mapping[str, bytes], flags: int) -> _Object:
    """An object that defines each of `contents` in a section of its own."""
    numbered = tuple(enumerate(contents.items(), 1))
    return _Object({i: _Section("", _PROGBITS, flags, raw, len(raw), 64) for i, (_, raw) in numbered},
                   [_Symbol(name, _GLOBAL, i, 0, len(raw)) for i, (name, raw) in numbered])


def _sysv_hash(name: str) -> int:
    h = 0
    for c in name.encode():
        h = (h << 4) + c
        h = (h ^ ((h & 0xF0000000) >> 24)) & 0x0FFFFFFF
    return h


class _Strings:
    """A string table under construction."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self._at: dict[str, int] = {"": 0}

    def add(self, text: str) -> int:
        if text not in self._at:
            self._at[text] = len(self.data)
            self.data += text.encode() + b"\0"
        return self._at[text]


@dataclass(frozen=True, slots=True)
class _Area:
    """A range of the library that becomes one entry of its section header table."""

    name: str
    kind: int
    flags: int
    start: int
    size: int
    link: int = 0
    info: int = 0
    align: int = 8
    entry: int = 0


def link(objects: Iterable[bytes], exports: Sequence[str], soname: str,
         imports: Iterable[str] = ("memcpy", "memset"), needed: Sequence[str] = (LIBC,),
         data: Mapping[str, bytes] | None = None, code: Mapping[str, bytes] | None = None) -> bytes:
    """Return a shared library that exports the functions and data called `exports`.

    objects: relocatable ELF objects for x86-64 (position independent code).  imports: names that may
    stay undefined; the loader finds them in the libraries `needed`.  data, code: read-only bytes and
    machine code by the symbol that names their first, aligned to 64.  Raises LinkError for a symbol that is
    undefined or defined twice, or for anything in the objects that is not supported.
    """
    # Data come first, so that what code reaches by short displacements lies close to it.
    parsed = [_raw(data or {}, _ALLOC), _raw(code or {}, _ALLOC | _EXECUTE), *(_parse(o) for o in objects)]
    defined: dict[str, tuple[_Object, _Symbol]] = {}
    wanted: dict[str, None] = {}
    for o in parsed:
        for s in o.symbols:
            if s.is_local or not s.name:
                continue
            if s.section == _UNDEFINED:
                wanted[s.name] = None
            elif s.section in o.sections:
                if s.name in defined:
                    raise LinkError(f"symbol {s.name} is defined twice")
                defined[s.name] = (o, s)
            else:
                raise LinkError(f"symbol {s.name} lies in a section that is not loaded")
    undefined = [name for name in wanted if name not in defined]
    allowed = set(imports)
    if strangers := sorted(set(undefined) - allowed | set(exports) - defined.keys()):
        raise LinkError(f"undefined symbols: {', '.join(strangers)}")

    # Sizes of the tables, then addresses: a library is laid out at 0 and its file offsets are addresses.
    everything = [s for o in parsed for s in o.sections.values()]
    executable = [s for s in everything if s.flags & _EXECUTE]
    readonly = [s for s in everything if not s.flags & (_EXECUTE | _WRITE)]
    relro = [s for s in everything if s.flags & _WRITE and s.name.startswith(".data.rel.ro")]
    writable = [s for s in everything if s.flags & _WRITE and s not in relro and s.kind != _NOBITS]
    zero = [s for s in everything if s.flags & _WRITE and s not in relro and s.kind == _NOBITS]
    got_names = _got_symbols(parsed)
    slots: dict[Any, int] = {key: i for i, key in enumerate([*undefined, *got_names])}
    dynamic_64 = sum(r.kind == _R_64 for s in everything for r in s.relocs)

    strings = _Strings()
    for name in (*undefined, *exports, *needed, soname):
        strings.add(name)
    symbol_count = 1 + len(undefined) + len(exports)
    buckets = max(1, symbol_count // 2)
    at_symbols = _align(64 + 56 * 6, 8)
    at_hash = at_symbols + 24 * symbol_count
    at_rela = _align(at_hash + 4 * (2 + buckets + symbol_count), 8)
    rela_count = len(slots) + dynamic_64
    at_strings = at_rela + 24 * rela_count
    at_readonly = _align(at_strings + len(strings.data), 64)
    end_readonly = _place(readonly, at_readonly)
    at_code = _align(end_readonly, PAGE)
    at_stubs = _align(_place(executable, at_code), 16)
    end_code = at_stubs + 16 * len(undefined)
    at_dynamic = _align(end_code, PAGE)
    dynamic_count = 12 + len(needed)
    at_got = at_dynamic + 16 * dynamic_count
    at_relro = at_got + 8 * len(slots)
    end_relro = _align(_place(relro, at_relro), PAGE)
    end_data = _place(writable, end_relro)
    end_zero = _place(zero, end_data)

    image = bytearray(end_data)
    for section in everything:
        image[section.address:section.address + len(section.data)] = section.data

    def stub(name: str) -> int:
        return at_stubs + 16 * slots[name]

    for name in undefined:  # jmp *slot(%rip)
        image[stub(name):stub(name) + 16] = struct.pack("<2si10s", b"\xff\x25", at_got + 8 * slots[name]
                                                        - (stub(name) + 6), b"\xcc" * 10)
    relas = [(at_got + 8 * slots[name], (1 + i) << 32 | _R_GLOB_DAT, 0) for i, name in enumerate(undefined)]
    relas += [(at_got + 8 * slots[key], _R_RELATIVE, 0) for key in got_names]
    addresses = {name: o.sections[s.section].address + s.value for name, (o, s) in defined.items()}

    for number, o in enumerate(parsed):
        for section in o.sections.values():
            for r in section.relocs:
                symbol = o.symbols[r.symbol]
                known = _address(o, symbol, addresses)
                place = section.address + r.offset
                key: Any = symbol.name if known is None else _slot_key(number, r.symbol, symbol, defined)
                if r.kind in (_R_PC32, _R_PLT32):
                    _put32(image, place, (stub(symbol.name) if known is None else known) + r.addend - place, symbol)
                elif r.kind in (_R_GOTPCREL, _R_GOTPCRELX, _R_REX_GOTPCRELX):
                    _put32(image, place, at_got + 8 * slots[key] + r.addend - place, symbol)
                    if known is not None:
                        relas[slots[key]] = (at_got + 8 * slots[key], _R_RELATIVE, known)
                elif r.kind == _R_PC64 and known is not None:
                    struct.pack_into("<q", image, place, known + r.addend - place)
                elif r.kind == _R_64 and section.flags & _WRITE:
                    relas.append((place, _R_RELATIVE, known + r.addend) if known is not None else
                                 (place, (1 + slots[symbol.name]) << 32 | _R_64, r.addend))
                else:
                    raise LinkError(f"relocation {r.kind} against {symbol.name or 'a section'} in {section.name} "
                                    "is not supported")
    assert len(relas) == rela_count

    # Tables of the loader.
    areas = [
        _Area("", 0, 0, 0, 0, align=0),
        _Area(".dynsym", _DYNSYM, _ALLOC, at_symbols, 24 * symbol_count, link=2, info=1, entry=24),
        _Area(".dynstr", _STRTAB, _ALLOC, at_strings, len(strings.data), align=1),
        _Area(".hash", _HASH, _ALLOC, at_hash, 4 * (2 + buckets + symbol_count), link=1, entry=4),
        _Area(".rela.dyn", _RELA, _ALLOC, at_rela, 24 * len(relas), link=1, entry=24),
        _Area(".rodata", _PROGBITS, _ALLOC, at_readonly, end_readonly - at_readonly, align=64),
        _Area(".text", _PROGBITS, _ALLOC | _EXECUTE, at_code, end_code - at_code, align=64),
        _Area(".dynamic", _DYNAMIC, _ALLOC | _WRITE, at_dynamic, 16 * dynamic_count, link=2, entry=16),
        _Area(".data.rel.ro", _PROGBITS, _ALLOC | _WRITE, at_got, end_relro - at_got),
        _Area(".data", _PROGBITS, _ALLOC | _WRITE, end_relro, end_data - end_relro, align=64),
        _Area(".bss", _NOBITS, _ALLOC | _WRITE, end_data, end_zero - end_data, align=64),
    ]
    entries = [struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)]
    entries += [struct.pack("<IBBHQQ", strings.add(name), 0x12, 0, 0, 0, 0) for name in undefined]
    for name in exports:
        where = addresses[name]
        index = next(i for i, a in enumerate(areas) if i and a.start <= where < a.start + max(a.size, 1) and i > 4)
        _, symbol = defined[name]
        entries.append(struct.pack("<IBBHQQ", strings.add(name), symbol.info, 0, index, where, symbol.size))
    image[at_symbols:at_hash] = b"".join(entries)
    image[at_hash:at_hash + 4 * (2 + buckets + symbol_count)] = _hash_table(["", *undefined, *exports], buckets)
    for i, rela in enumerate(relas):
        struct.pack_into("<QQq", image, at_rela + 24 * i, *rela)
    image[at_strings:at_strings + len(strings.data)] = strings.data
    dynamic = [(1, strings.add(name)) for name in needed] + [
        (14, strings.add(soname)), (4, at_hash), (5, at_strings), (6, at_symbols), (10, len(strings.data)), (11, 24),
        (7, at_rela), (8, 24 * len(relas)), (9, 24), (0x18, 0), (0x1E, 8)]  # bind everything at once
    for i, (tag, value) in enumerate(dynamic):
        struct.pack_into("<QQ", image, at_dynamic + 16 * i, tag, value)

    def segment(kind: int, flags: int, start: int, end: int, file_end: int, align: int) -> bytes:
        return struct.pack("<IIQQQQQQ", kind, flags, start, start, start, file_end - start, end - start, align)

    read, write, run = 4, 2, 1
    segments = (segment(1, read, 0, end_readonly, end_readonly, PAGE)
                + segment(1, read | run, at_code, end_code, end_code, PAGE)
                + segment(1, read | write, at_dynamic, end_zero, end_data, PAGE)
                + segment(2, read | write, at_dynamic, at_got, at_got, 8)
                + segment(0x6474E552, read, at_dynamic, end_relro, end_relro, 1)   # RELRO
                + segment(0x6474E551, read | write, 0, 0, 0, 16))                     # the stack is not executable
    image[64:64 + len(segments)] = segments
    return _with_section_headers(image, areas)


def _got_symbols(parsed: Sequence[_Object]) -> list[Any]:
    """The defined symbols whose address is read from memory, each once, in order."""
    defined = {s.name for o in parsed for s in o.symbols if not s.is_local and s.section != _UNDEFINED}
    found: dict[Any, None] = {}
    for number, o in enumerate(parsed):
        for section in o.sections.values():
            for r in section.relocs:
                s = o.symbols[r.symbol]
                if r.kind in (_R_GOTPCREL, _R_GOTPCRELX, _R_REX_GOTPCRELX) and (
                        s.section != _UNDEFINED or s.name in defined):
                    found[_slot_key(number, r.symbol, s, defined)] = None
    return list(found)


def _slot_key(number: int, index: int, symbol: _Symbol, defined: Iterable[str]) -> Any:
    return (number, index) if symbol.is_local else ("", symbol.name)


def _address(o: _Object, symbol: _Symbol, addresses: Mapping[str, int]) -> int | None:
    if symbol.section == _UNDEFINED:
        return addresses.get(symbol.name)
    if symbol.section >= _RESERVED or symbol.section not in o.sections:
        raise LinkError(f"symbol {symbol.name} lies in a section that is not loaded")
    return o.sections[symbol.section].address + symbol.value


def _place(sections: Sequence[_Section], start: int) -> int:
    """Give `sections` addresses from `start` on; return where they end."""
    for s in sections:
        s.address = _align(start, s.align)
        start = s.address + s.size
    return start


def _put32(image: bytearray, at: int, value: int, symbol: _Symbol) -> None:
    if not -2**31 <= value < 2**31:
        raise LinkError(f"{symbol.name or 'a section'} is out of reach of a 32-bit displacement")
    struct.pack_into("<i", image, at, value)


def _hash_table(names: Sequence[str], buckets: int) -> bytes:
    heads, chain = [0] * buckets, [0] * len(names)
    for i, name in enumerate(names):
        if i:
            bucket = _sysv_hash(name) % buckets
            chain[i], heads[bucket] = heads[bucket], i
    return struct.pack(f"<{2 + buckets + len(names)}I", buckets, len(names), *heads, *chain)


def _with_section_headers(image: bytearray, areas: Sequence[_Area]) -> bytes:
    """Add the section headers (read by linkers and debuggers, not by the loader) and the ELF header."""
    names = _Strings()
    headers = [struct.pack("<IIQQQQIIQQ", names.add(a.name), a.kind, a.flags, a.start, a.start, a.size, a.link, a.info,
                           a.align, a.entry) for a in areas]
    own = names.add(".shstrtab")
    start = len(image)
    headers.append(struct.pack("<IIQQQQIIQQ", own, _STRTAB, 0, 0, start, len(names.data), 0, 0, 1, 0))
    image += names.data
    image += bytes(-len(image) % 8)
    at_headers = len(image)
    image += b"".join(headers)
    image[:64] = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 62, 1, 0, 64, at_headers, 0, 64, 56, 6,
                             64, len(headers), len(headers) - 1)
    return bytes(image)


# ---------------------------------------------------------------------------------------------
# Loading.


@dataclass(frozen=True, slots=True)
class Loaded:
    """Machine code in this process: addresses by symbol, which way it was loaded ("library" or "llvm"),
    and what must live as long as the code."""

    addresses: dict[str, int]
    way: str
    owner: Any


def can_link() -> bool:
    """Return whether this process can load what `link` makes."""
    return sys.platform == "linux" and os.uname().machine == "x86_64" and sys.maxsize > 2**32


def load_library(image: bytes, symbols: Iterable[str]) -> Loaded:
    """Load a shared library from its bytes.  Raises OSError where the system refuses.

    The bytes go through a memory file, so that what was checked is what is loaded, no folder need be
    writable, and a file system mounted noexec does not matter.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("graphc", os.MFD_CLOEXEC)
    else:
        descriptor, path = tempfile.mkstemp(suffix=".so")
        os.unlink(path)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as out:
            out.write(image)
        library = ctypes.CDLL(f"/proc/self/fd{_unique_slashes()}{descriptor}", mode=os.RTLD_NOW | os.RTLD_LOCAL)
    finally:
        os.close(descriptor)
    addresses = {name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in symbols}
    return Loaded(addresses, "library", library)


_loads = itertools.count(1)


def _unique_slashes() -> str:
    """A separator that differs at every call: the loader takes equal names for the same library, and
    descriptors are used again.  The number of the call is written in `//` (0) and `/./` (1)."""
    return "".join("/./" if digit == "1" else "//" for digit in bin(next(_loads))[2:])


def load(objects: Sequence[bytes], symbols: Sequence[str], soname: str = "graphc.so",
         imports: Iterable[str] = ("memcpy", "memset")) -> Loaded:
    """Load relocatable objects: linked here where this system can load that, else through LLVM."""
    if can_link():
        try:
            return load_library(link(objects, symbols, soname, imports), symbols)
        except OSError:  # no /proc, or a policy against executable memory files: LLVM maps memory itself
            pass
    return load_with_llvm(objects, symbols)


def load_with_llvm(objects: Sequence[bytes], symbols: Sequence[str]) -> Loaded:
    """Load relocatable objects of this machine's kind through LLVM's JIT linker.  Imports llvmlite."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    jit = llvm.create_lljit_compiler()
    builder = llvm.JITLibraryBuilder().add_current_process()
    for image in objects:
        builder = builder.add_object_img(image)
    for name in symbols:
        builder = builder.export_symbol(name)
    tracker = builder.link(jit, "graphc")
    return Loaded({name: tracker[name] for name in symbols}, "llvm", (jit, tracker))

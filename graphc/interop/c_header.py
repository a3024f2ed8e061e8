"""The C header of a compiled program.

Owns its text.  Knows the interface alone.  Invariant: it is C99 and C++11, and needs no other header than the standard
ones for integers and bool.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import Template

from graphc import dtypes
from graphc.interop.c_interface import ABI, C_TYPES, MEANINGS, ArrayField, Interface, SizeField, Status
from graphc.ir.dim import Size

_HEADER = Template("""\
/* $prefix: a program compiled by graphc for $target, as a shared library.
 *
 * Needs nothing but the C library (glibc 2.34 or later; x86-64 Linux).  All state is in contexts: different contexts
 * may be used by different threads at the same time, one context by one thread at a time.  Arrays are contiguous, the
 * last axis fastest, aligned to their elements; outputs must not overlap inputs or each other.  float16 elements are
 * their bits; bfloat16 elements are the upper halves of float32 numbers.
 */
#ifndef $guard
#define $guard

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ${PREFIX}_ABI $abi

/* Equals ${prefix}_interface() of the library that this header was written with. */
#define ${PREFIX}_INTERFACE INT64_C($digest)

/* What functions return. */
enum ${prefix}_status {
$statuses
};

typedef struct ${prefix}_context ${prefix}_context;

typedef struct ${prefix}_options {
  int32_t threads;  /* threads that work on one run, the calling one included; 0: one per processor */
} ${prefix}_options;
$structs
/* Make a context that holds all variables as they were saved.  options may be NULL (all zero).  On failure *context
 * is NULL. */
int32_t ${prefix}_create(const ${prefix}_options *options, ${prefix}_context **context);

/* End its threads and free all memory of a context; NULL is allowed. */
void ${prefix}_destroy(${prefix}_context *context);

/* Compute the outputs, and the next values of the variables that the program writes.  Memory grows with the largest
 * sizes seen and is kept; sizes equal to those of the last run cost nothing.  When this fails the outputs' contents
 * are undefined and ${prefix}_error_text tells why. */
int32_t ${prefix}_run(${run});

/* Say in words why the last call with this context failed; "" if it did not. */
const char *${prefix}_error_text(const ${prefix}_context *context);

/* Say in words what a status means. */
const char *${prefix}_status_text(int32_t status);
$shapes
/* Identify names, types and order of everything that is declared here: see ${PREFIX}_INTERFACE. */
int64_t ${prefix}_interface(void);

/* Name the program, the processor it was compiled for, and the version of graphc. */
const char *${prefix}_version(void);

#ifdef __cplusplus
}
#endif

#endif
""")

_SHAPE = Template("""
/* Return the number of elements of $name for these sizes, or minus a status.$shape */
int64_t $function($arguments);
""")


def header_text(interface: Interface, target: str) -> str:
    """Return the header of `interface`.  target: the processor that the library was compiled for."""
    prefix, upper = interface.prefix, interface.prefix.upper()
    groups = [_struct(prefix, "sizes", "sizes of a run", map(_size_field, interface.sizes)),
              _struct(prefix, "inputs", "arrays that a run reads", (_array(a, "const ") for a in interface.inputs)),
              _struct(prefix, "outputs", "arrays that a run writes", (_array(a, "") for a in interface.outputs))]
    return _HEADER.substitute(
        prefix=prefix, PREFIX=upper, guard=f"GRAPHC_{upper}_H", target=target, abi=ABI, digest=interface.digest,
        statuses="\n".join(f"  {upper}_{s.name} = {s.value}{',' if s < max(Status) else ''}  /* {MEANINGS[s]} */"
                           for s in Status),
        structs="".join(groups), run=", ".join([f"{prefix}_context *context", *_arguments(interface)]),
        shapes="".join(_shape(interface, a) for a in interface.outputs))


def _arguments(interface: Interface) -> list[str]:
    """The parameters of run behind the context: structs that would be empty, which C does not have, are left out."""
    groups = (("sizes", interface.sizes), ("inputs", interface.inputs), ("outputs", interface.outputs))
    return [f"const {interface.prefix}_{name} *{name}" for name, fields in groups if fields]


def _struct(prefix: str, name: str, told: str, fields: Iterable[str]) -> str:
    lines = "".join(f"  {field}\n" for field in fields)
    return f"\n/* The {told}. */\ntypedef struct {prefix}_{name} {{\n{lines}}} {prefix}_{name};\n" if lines else ""


def _size_field(field: SizeField) -> str:
    return f"int64_t {field.name};  /* {field.told} */"


def _array(array: ArrayField, qualifier: str) -> str:
    special = array.dtype in (dtypes.float16, dtypes.bfloat16)
    kind = f"{array.dtype.name} " if special else ""
    label = f'  "{_comment(array.label)}"' if array.label != array.name else ""
    return f"{qualifier}{C_TYPES[array.dtype]} *{array.name};  /* {kind}{_dimensions(array.shape)}{label} */"


def _dimensions(shape: Sequence[Size]) -> str:
    return f"[{', '.join(map(str, shape))}]" if shape else "one number"


def _shape(interface: Interface, array: ArrayField) -> str:
    arguments = [f"const {interface.prefix}_sizes *sizes"] if interface.sizes else []
    note = ""
    if array.shape:
        arguments.append(f"int64_t shape[{len(array.shape)}]")
        note = f"\n * shape, where it is not NULL, receives {_dimensions(array.shape)}."
    return _SHAPE.substitute(name=array.name, shape=note, function=interface.shape_function(array),
                             arguments=", ".join(arguments) or "void")


def _comment(text: str) -> str:
    """Return `text` as it may stand in a comment."""
    return text.replace("*/", "* /")

"""Groups of units that become one kernel, and when two of them may become one.

Owns the iteration domain of a group: which axes it keeps and which it reduces, and where in it each value lives; and
the legality of joining two groups.  Knows units; knows neither the whole function nor how a kernel is written.
Invariants: every value of a group is either at one place of the domain (`labels`) or computed wherever it is read
(labels None, "inline"); a value that leaves the group spans all kept axes, or all axes.

Forms.  map: all axes kept.  rows: reductions over the reduced axes, anything over the kept ones or over both.
contract: one product; everything else is over its output (an epilogue) or is a plain factor.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from graphc.ir import dim
from graphc.ir.dim import Dim, Size
from graphc.ir.function import Value
from graphc.passes.access import UNIT, Labels, Read, Unit, estimate

CHEAP_SCALAR = 16.0   # cycles of a scalar computed again by each kernel that reads it
CHEAP_REPEAT = 8.0    # cycles of an element computed again wherever it is read
MAX_PRIMITIVES = 128
MAX_BUFFERS = 32
SERIAL_ROWS = 8       # so few rows give no parallel work
SERIAL_ELEMENTS = 1 << 15
LONG = 1 << 16        # elements from which a reduction to few results is done in parts:
FEW_ROWS = 64         # to so few, or, where neighbouring results come from neighbouring elements,
MANY_COLUMNS = 4096   # to so many in each of SERIAL_ROWS rows


class Space:
    """The axes of all groups: union-find over numbered axes, each with its size."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self.sizes: list[Size] = []

    def fresh(self, size: Size) -> int:
        """Return a new axis."""
        self._parent.append(len(self._parent))
        self.sizes.append(size)
        return self._parent[-1]

    def find(self, axis: int) -> int:
        """Return the representative of `axis` (UNIT stands for itself)."""
        if axis == UNIT:
            return UNIT
        parent = self._parent
        while parent[axis] != axis:
            parent[axis] = parent[parent[axis]]
            axis = parent[axis]
        return axis

    def unite(self, a: int, b: int) -> None:
        """Make two axes one; a represents it."""
        self._parent[self.find(b)] = self.find(a)

    def resolve(self, labels: Labels | None) -> Labels | None:
        """Return labels over representatives."""
        return None if labels is None else tuple(map(self.find, labels))

    def count(self, axes: Iterable[int]) -> int:
        """Return the estimated number of elements of a domain over `axes`."""
        return estimate(dim.product(self.sizes[a] for a in axes))


@dataclass(slots=True)
class Group:
    """kept, reduced: axes.  defs: what is computed here and where (None: inline).  reads: what is read from outside or
    inside, and where.  copies: values computed again here, which their own group may give to others.  spans: the axes
    of each reduction and product, in the order of its unit's."""

    form: str
    kept: set[int]
    reduced: set[int]
    units: dict[Value, Unit]
    defs: dict[Value, Labels | None]
    reads: dict[Value, list[Read]]
    primitives: int
    cycles: float
    copies: set[Value]
    spans: dict[Value, tuple[int, ...]]

    @classmethod
    def of(cls, unit: Unit, space: Space, copy: bool = False) -> Group:
        """Return the group of one unit, over fresh axes."""
        axes = [space.fresh(n) for n in unit.sizes]

        def place(labels: Labels | None) -> Labels | None:
            return None if labels is None else tuple(UNIT if a == UNIT else axes[a] for a in labels)

        reads: dict[Value, list[Read]] = {}
        for r in unit.reads:
            reads.setdefault(r.value, []).append(replace(r, labels=place(r.labels)))
        form = {"map": "map", "reduce": "rows", "contract": "contract"}[unit.kind]
        hidden = set(axes[unit.kept:]) if form != "map" else set()
        return cls(form, set(axes[:unit.kept]), hidden, {unit.value: unit}, {unit.value: place(unit.labels)}, reads,
                   unit.primitives, unit.cycles, {unit.value} if copy else set(),
                   {unit.value: tuple(axes)} if unit.inputs else {})

    @property
    def axes(self) -> set[int]:
        return self.kept | self.reduced


@dataclass(slots=True)
class Joint:
    """How two groups become one: axes to unite (first's, second's), the domain, and whether the first is inline."""

    pairs: list[tuple[int, int]]
    form: str
    kept: set[int]
    reduced: set[int]
    inline: bool = False


class Pairing:
    """A one-to-one match of the axes of two groups, built read by read."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.forth: dict[int, int] = {}
        self.back: dict[int, int] = {}

    def pair(self, a: int, b: int) -> bool:
        """Match two axes; whether that agrees with what is matched."""
        if self.forth.get(a, b) != b or self.back.get(b, a) != a:
            return False
        self.forth[a], self.back[b] = b, a
        return True

    def labels(self, first: Labels, second: Labels) -> bool:
        """Match two places of one value; whether that agrees.  Nothing changes where it does not."""
        forth, back = dict(self.forth), dict(self.back)
        for p, q in zip(first, second, strict=True):
            a, b = self.space.find(p), self.space.find(q)
            if UNIT in (a, b):
                continue  # of size 1
            if not self.pair(a, b):
                self.forth, self.back = forth, back
                return False
        return True

    def rest(self, a: Group, b: Group) -> None:
        """Match axes that are still free: by what both groups read at one place, then by size and order."""
        if self._done(a, b):
            return
        few, many = (a.reads, b.reads) if len(a.reads) <= len(b.reads) else (b.reads, a.reads)
        for value in few:
            if value in many:
                for p in a.reads[value]:
                    for q in b.reads[value]:
                        if p.labels is not None and q.labels is not None and not (p.operand or q.operand):
                            self.labels(p.labels, q.labels)
        if self._done(a, b):
            return
        for mine in sorted(map(self.space.find, a.axes)):
            if mine in self.forth:
                continue
            for other in sorted(map(self.space.find, b.axes)):
                if other not in self.back and self.space.sizes[mine] == self.space.sizes[other]:
                    self.pair(mine, other)
                    break

    def _done(self, a: Group, b: Group) -> bool:
        return len(self.forth) == len(a.axes) or len(self.back) == len(b.axes)


def join(space: Space, a: Group, b: Group, outside: Callable[[Group], bool]) -> Joint | str:
    """Return how `a` and the later `b` become one group, or the reason why they cannot.

    outside(a): whether a value of `a` is needed by others than a and b.
    """
    if a.primitives + b.primitives > MAX_PRIMITIVES:
        return f"together they have more than {MAX_PRIMITIVES} primitives"
    if len(a.reads) + len(b.reads) > 2 * MAX_BUFFERS:
        return f"together they read more than {2 * MAX_BUFFERS} values"
    links = [(a.defs[v], r) for v, reads in b.reads.items() if v in a.defs and v not in b.defs for r in reads]
    if not links:
        return _siblings(space, a, b)
    if any(r.operand for _, r in links) and not _is_plain(a):
        return "a factor of a product is read from memory"
    pairing = Pairing(space)
    placed = all(at is not None and r.labels is not None and pairing.labels(at, r.labels) for at, r in links)
    if not placed:
        return _inline(space, a, b, outside)
    linked = {space.find(x) for at, _ in links if at is not None for x in at if x != UNIT}
    match a.form, b.form:
        case "map", _:
            return _map_first(space, a, b, pairing, linked, outside)
        case "rows", "map" | "rows":
            reduced = _resolved(space, a.reduced)
            waits = any(reduced.isdisjoint(map(space.find, at)) for at, _ in links if at is not None)
            return _rows_first(space, a, b, pairing, linked, waits)
        case "contract", "map":
            if not _resolved(space, a.kept) <= linked or _image(pairing, _resolved(space, a.kept)) != \
                    _resolved(space, b.kept):
                return "the epilogue of a product is over exactly its elements"
            return Joint(_pairs(pairing), "contract", a.kept, a.reduced)
        case _:
            return "a product's results are reduced, or multiplied, by another kernel"


def _is_plain(a: Group) -> bool:
    """Whether `a` may stand in a factor of a product: copied, a cast at most, at one place."""
    return a.form == "map" and a.primitives <= 1 and a.copies == a.defs.keys() and None not in a.defs.values()


def _resolved(space: Space, axes: Iterable[int]) -> set[int]:
    return set(map(space.find, axes))


def _pairs(pairing: Pairing) -> list[tuple[int, int]]:
    return list(pairing.forth.items())


def _image(pairing: Pairing, axes: Iterable[int]) -> set[int]:
    return {pairing.forth[a] for a in axes if a in pairing.forth}


def _inline(space: Space, a: Group, b: Group, outside: Callable[[Group], bool]) -> Joint | str:
    if a.form != "map":
        return "a reduced value is read at computed positions"
    if any(r.operand for v in a.defs for r in b.reads.get(v, ())):
        return "a factor of a product is read at computed positions"
    if outside(a):
        return "a value is read at computed positions here, and needed elsewhere too"
    made = space.count(_resolved(space, a.axes))
    if a.cycles > CHEAP_REPEAT and _times(a, b) * space.count(_resolved(space, b.axes)) > 1.5 * made:
        return "computing it again at each position costs more than loading it"
    return Joint([], b.form, b.kept, b.reduced, True)


def _times(a: Group, b: Group) -> int:
    """How many elements of `a` an element of `b` reads at computed positions."""
    return max((r.times for v in a.defs for r in b.reads.get(v, ())), default=1)


def _map_first(space: Space, a: Group, b: Group, pairing: Pairing, linked: set[int],
               outside: Callable[[Group], bool]) -> Joint | str:
    axes, kept, reduced = _resolved(space, a.kept), _resolved(space, b.kept), _resolved(space, b.reduced)
    if not axes <= linked:
        return "the later one reads a value that does not span the earlier one's domain"
    image = _image(pairing, axes)
    joint = Joint(_pairs(pairing), b.form, b.kept, b.reduced)
    everything = kept if b.form == "contract" else kept | reduced
    if image == everything or (b.form == "rows" and image == kept):
        return joint
    if outside(a):
        return "a smaller value is needed elsewhere too"
    limit = CHEAP_SCALAR if not axes else CHEAP_REPEAT
    if a.cycles > limit:
        return "computing it again for each element it is broadcast to costs more than loading it"
    return joint


def _rows_first(space: Space, a: Group, b: Group, pairing: Pairing, linked: set[int], waits: bool) -> Joint | str:
    """waits: whether b needs a result of a's reductions."""
    kept, reduced = _resolved(space, a.kept), _resolved(space, a.reduced)
    others = _resolved(space, b.axes)
    if not kept <= linked:
        return "the later one reads a value that does not span the rows"
    pairing.rest(a, b)
    image = _image(pairing, kept)
    columns = _image(pairing, reduced)
    joint = Joint(_pairs(pairing), "rows", a.kept, a.reduced)
    rest = others - image
    if len(image) != len(kept):
        return "the later one is over other axes than the rows"
    if b.form == "rows":
        if image != _resolved(space, b.kept) or columns != _resolved(space, b.reduced) or len(columns) != len(reduced):
            return "they reduce over different axes"
    elif not rest:
        return joint
    elif columns != rest or len(columns) != len(reduced):
        return "the later one is over other axes than the rows"
    if waits and _has_long_columns(space, a):
        return "long columns are reduced in parts, in parallel, and better read twice"
    if space.count(kept) <= SERIAL_ROWS and space.count(kept | reduced) > SERIAL_ELEMENTS:
        return "a few long rows are better read twice, in parallel"
    return joint


def _has_long_columns(space: Space, group: Group) -> bool:
    """Whether a group's reductions run in parts: over many elements to few results, along other axes than the one along
    which what it reads is contiguous.  A batch alone, whose size is not known, is short."""
    kept, reduced = _resolved(space, group.kept), _resolved(space, group.reduced)
    length = dim.product(space.sizes[x] for x in reduced)
    if (isinstance(length, Dim) and length.is_symbol) or space.count(kept | reduced) < LONG:
        return False
    places = ([space.find(x) for x in r.labels or () if x != UNIT] for reads in group.reads.values() for r in reads)
    columns = {at[-1] for at in places if at and at[-1] in kept and not reduced.isdisjoint(at)}
    return any(space.count({x}) <= MANY_COLUMNS and space.count(kept - {x}) <= SERIAL_ROWS for x in columns)


def _siblings(space: Space, a: Group, b: Group) -> Joint | str:
    """Groups side by side: over the same domain, reading the same."""
    if "contract" in (a.form, b.form):
        return "products share no loop"
    pairing = Pairing(space)
    pairing.rest(a, b)
    ak, ar = _resolved(space, a.kept), _resolved(space, a.reduced)
    bk, br = _resolved(space, b.kept), _resolved(space, b.reduced)
    if len(pairing.forth) != len(ak | ar) or len(pairing.back) != len(bk | br):
        if a.form == b.form or len(ak) != len(bk) or _image(pairing, ak) != bk or "rows" not in (a.form, b.form):
            return "their domains differ"
    elif a.form == b.form and _image(pairing, ak) != bk:
        return "they reduce over different axes"
    first = a if a.form == "rows" or b.form == "map" else b
    return Joint(_pairs(pairing), first.form, first.kept, first.reduced)


def merge(space: Space, a: Group, b: Group, joint: Joint) -> Group:
    """Return the group that `a` and `b` become."""
    for p, q in joint.pairs:
        space.unite(p, q)
    operands = {v for v, reads in b.reads.items() if v in a.defs and any(r.operand for r in reads)}
    if joint.inline:
        a_defs: dict[Value, Labels | None] = dict.fromkeys(a.defs)
        times = _times(a, b)
        a_reads = {v: [Read(v, None, times=times * max(r.times for r in reads))] for v, reads in a.reads.items()}
    else:
        a_defs = a.defs
        a_reads = {v: [Read(v, r.labels, True) for r in reads] for v, reads in a.reads.items()} if operands else a.reads
    big, small = (a, b) if len(a.units) >= len(b.units) and not joint.inline else (b, a)
    into_defs = a_defs if big is a else b.defs
    from_defs = b.defs if big is a else a_defs
    into_reads = a_reads if big is a else b.reads
    from_reads = b.reads if big is a else a_reads
    copies = {v for v in a.copies | b.copies
              if (v not in a.defs or v in a.copies) and (v not in b.defs or v in b.copies)}
    for v, at in from_defs.items():
        if v not in into_defs or (v in big.copies and v not in small.copies):
            into_defs[v] = at
        elif space.resolve(into_defs[v]) != space.resolve(at) and not (v in small.copies and v not in big.copies):
            into_defs[v] = None
    for v, reads in from_reads.items():
        known = into_reads.setdefault(v, [])
        places = {(space.resolve(r.labels), r.operand): r.times for r in known}
        known.extend(r for r in reads if places.get((space.resolve(r.labels), r.operand), 0) < r.times)
    units = big.units
    for v, unit in small.units.items():
        units.setdefault(v, unit)
    kept, reduced = _resolved(space, joint.kept), _resolved(space, joint.reduced)
    return Group(joint.form, kept, reduced, units, into_defs, into_reads, a.primitives + b.primitives,
                 a.cycles + b.cycles, copies, a.spans | b.spans)


def storable(space: Space, group: Group, value: Value) -> bool:
    """Whether `value` can leave the group."""
    at = space.resolve(group.defs[value])
    if at is None:
        return False
    axes = {a for a in at if a != UNIT}
    return axes >= group.kept and (axes == group.kept or axes >= group.kept | group.reduced)


def domain(space: Space, group: Group, order: Sequence[Value]) -> list[int]:
    """Return the axes of a group: kept ones first, each in the order of the values given, largest rank first."""
    seen: dict[int, None] = {}
    for v in sorted(order, key=lambda v: -v.tensor.rank):
        for at in ([group.defs[v]] if v in group.defs else []) + [r.labels for r in group.reads.get(v, ())]:
            for a in at or ():
                if a != UNIT:
                    seen.setdefault(space.find(a))
    everything = [*seen, *sorted((group.kept | group.reduced) - seen.keys())]
    return [a for a in everything if a in group.kept] + [a for a in everything if a in group.reduced]

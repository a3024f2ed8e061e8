"""The rules of the house that a reader of the code must be able to trust: order of imports, lazy imports, file
sizes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "graphc"

# A module may import from rooms that stand before its own, and from its own room.
ROOMS = [
    ("errors",),
    ("source",),
    ("dtypes",),
    ("tensorfile",),
    ("options",),
    ("frames",),
    ("ir.dim",),
    ("ir.types",),
    ("kernel",),
    ("graph",),
    ("ops",),
    ("autodiff",),
    ("ir",),
    ("dsl",),
    ("passes",),
    ("backends",),
    ("runtime",),
    ("dump",),
    ("compiler",),
    ("session",),
    ("api",),
    ("compat",),
    ("model",),
    ("artifact",),
    ("interop",),
    ("inspection",),
    ("view",),
    ("cli",),
    ("__main__",),
]


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def dotted(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix(".__init__")


def room(name: str) -> int:
    """The number of the most specific room that holds module `name`."""
    best, found = -1, -1
    for number, (prefix,) in enumerate(ROOMS):
        if (name == prefix or name.startswith(prefix + ".")) and len(prefix) > best:
            best, found = len(prefix), number
    assert found >= 0, f"graphc.{name} stands in no room; say in test_architecture.py where it belongs"
    return found


def imported(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, module inside graphc) for every import of graphc in the tree."""
    out = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            if node.module == "graphc":
                out += [(node.lineno, a.name) for a in node.names]
            elif node.module and node.module.startswith("graphc."):
                base = node.module.removeprefix("graphc.")
                for a in node.names:
                    inner = PACKAGE / Path(*base.split(".")) / a.name
                    is_module = inner.with_suffix(".py").exists() or inner.is_dir()
                    out.append((node.lineno, f"{base}.{a.name}" if is_module else base))
        elif isinstance(node, ast.Import):
            out += [(node.lineno, a.name.removeprefix("graphc.")) for a in node.names if a.name.startswith("graphc.")]
    return out


@pytest.mark.parametrize("path", modules(), ids=lambda p: dotted(p))
def test_imports_point_upwards(path: Path) -> None:
    own = room(dotted(path))
    wrong = [f"line {line}: graphc.{name}" for line, name in imported(ast.parse(path.read_text())) if room(name) > own]
    assert not wrong, f"{dotted(path)} imports from rooms below it: {wrong}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: dotted(p))
def test_graphc_is_imported_at_the_top_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    inside = [
        f"{fn.name}, line {line}"
        for fn in ast.walk(tree)
        if isinstance(fn, ast.FunctionDef | ast.AsyncFunctionDef)
        for line, _ in imported(fn)
    ]
    assert not inside, f"{dotted(path)} imports graphc inside functions: {inside}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: dotted(p))
def test_every_file_says_what_it_owns(path: Path) -> None:
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{dotted(path)} has no docstring"


def test_llvm_backend_never_imports_numba() -> None:
    for path in (PACKAGE / "backends" / "llvm_cpu").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
            )
            assert not any(n.split(".")[0] == "numba" for n in names), path


def test_import_graphc_loads_no_compiler() -> None:
    code = (
        "import sys, graphc; graphc.placeholder; graphc.Session; graphc.nn.relu; graphc.train.AdamOptimizer\n"
        "heavy = ('numba', 'llvmlite', 'networkx', 'rich', 'click', 'safetensors', 'cuda')\n"
        "bad = [m for m in heavy if m in sys.modules]\n"
        "assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_files_stay_comfortable() -> None:
    long = {str(p.relative_to(ROOT)): n for p in modules() if (n := p.read_text().count("\n")) > 650}
    assert not long, f"files grown past comfort: {long}"


def test_no_pickle_anywhere() -> None:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
            )
            assert not any(n.split(".")[0] in ("pickle", "marshal", "shelve", "dill") for n in names), path

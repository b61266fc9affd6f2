"""Which modules of metaspeech a stage imports, read from the sources: DVC does not follow imports."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from metaspeech import registry

ROOT = Path(__file__).resolve().parents[1]
FRAME = "pipelines._stage"  # of which every stage counts as made
TABLES = {name: value for name, value in vars(registry).items() if name.isupper()}


def reached(start: Path, chosen: dict[str, str] | None = None) -> set[Path]:
    """Files of ours, save the frame of stages, that ``start`` imports, directly or not, also inside functions and
    through the registry.

    Args:
        chosen: table of the registry -> the one entry that a matrix item uses; of other tables every entry counts.
    """
    found: set[Path] = set()
    waiting = [start]
    while waiting:
        for module in _imports(waiting.pop(), tuple((chosen or {}).items())):
            path = _file(module)
            if path is not None and path not in found:
                found.add(path)
                waiting.append(path)
    return found


@cache
def _imports(path: Path, chosen: tuple[tuple[str, str], ...]) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in _runtime(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Name | ast.Attribute) and path.name not in ("config.py", "registry.py"):
            table = node.id if isinstance(node, ast.Name) else node.attr
            entries = TABLES.get(table, {})
            wanted = dict(chosen).get(table)
            names |= {entry.partition(":")[0] for name, entry in entries.items() if wanted in (None, name)}
    return frozenset(name for name in names if name.startswith(("metaspeech", "pipelines._")))


def _runtime(tree: ast.AST):  # type: ignore[no-untyped-def]
    """Nodes that run: not those under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _runtime(child)


@cache
def _file(module: str) -> Path | None:
    """None for a module that is not ours, and for a package that says nothing but its docstring."""
    if module.startswith(FRAME):
        return None
    base = ROOT / ("src" if module.startswith("metaspeech") else "") / Path(*module.split("."))
    path = next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists()), None)
    return path if path is not None and _statements(path) else None


def _statements(path: Path) -> list[ast.stmt]:
    return [node for node in ast.parse(path.read_text(encoding="utf-8")).body if not isinstance(node, ast.Expr)]


def sections_read(path: Path) -> set[str]:
    """Top-level keys of params.yaml that a pipeline file reads as ``stage.params.<key>`` or ``params.<key>``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value
        if (isinstance(owner, ast.Attribute) and owner.attr == "params") or (
            isinstance(owner, ast.Name) and owner.id == "params"
        ):
            found.add(node.attr)
    return found

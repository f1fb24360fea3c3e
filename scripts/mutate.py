"""Mutates modules at random places and counts the mutants that their tests notice.

    python scripts/mutate.py 'tests/unit/events' datasync_crawler/events/*.py [--mutants 100]

Works on the files in place and restores each; use a copy of the project. A survivor is printed with
its line. It may be equivalent: then the code says something that makes no difference.
"""

from __future__ import annotations

import argparse
import ast
import random
import subprocess
import sys
from pathlib import Path

COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
COMPUTED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult}
TIMEOUT_S = 120


def mutations(tree: ast.Module) -> list[tuple[ast.AST, str]]:
    """Each node within a function that can be changed, and how."""
    found: dict[tuple[int, str], tuple[ast.AST, str]] = {}
    functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    for node in (inner for function in functions for inner in ast.walk(function)):
        kinds: tuple[str, ...] = ()
        if isinstance(node, ast.Compare):
            kinds = ("compare",)
        elif isinstance(node, ast.BinOp) and type(node.op) in COMPUTED:
            kinds = ("compute",)
        elif isinstance(node, ast.BoolOp):
            kinds = ("and or",)
        elif isinstance(node, ast.Constant) and isinstance(node.value, int):
            kinds = ("constant",)
        elif isinstance(node, ast.If):
            kinds = ("always", "never")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            kinds = ("no call",)
        elif isinstance(node, ast.Return) and node.value is not None:
            kinds = ("return None",)
        found |= {(id(node), kind): (node, kind) for kind in kinds}
    return list(found.values())


def mutate(node: ast.AST, kind: str) -> None:
    """Changes the node in its tree."""
    if isinstance(node, ast.Compare):
        node.ops[0] = COMPARED[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp):
        node.op = COMPUTED[type(node.op)]()
    elif isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    elif isinstance(node, ast.If):
        node.test = ast.Constant(kind == "always")
    elif isinstance(node, ast.Expr | ast.Return):
        node.value = ast.Constant(None)


def survives(tests: list[str]) -> bool:
    """Whether the tests pass; one that hangs doesn't."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=TIMEOUT_S)  # noqa: S603
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main() -> None:
    """Prints survivors, and the score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tests", help="what pytest is to run, with blanks between")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--mutants", type=int, default=100)
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    sources = {file: file.read_text() for file in options.files}
    places = [(file, n) for file, text in sources.items()
              for n in range(len(mutations(ast.parse(text))))]  # fmt: skip
    chosen = random.Random(options.seed).sample(  # noqa: S311
        places, min(options.mutants, len(places))
    )
    killed = 0
    for file, number in chosen:
        tree = ast.parse(sources[file])
        node, kind = mutations(tree)[number]
        before = ast.unparse(node).splitlines()[0]
        mutate(node, kind)
        file.write_text(ast.unparse(ast.fix_missing_locations(tree)))
        try:
            if survives(options.tests.split()):
                print(f"{file}:{getattr(node, 'lineno', 0)}: {kind}: {before}", flush=True)
            else:
                killed += 1
        finally:
            file.write_text(sources[file])
    print(f"{killed} of {len(chosen)} killed")


if __name__ == "__main__":
    main()

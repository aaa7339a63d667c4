"""Style and types, checked like the rest."""

import ast
import functools
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SOURCE = ROOT / "src" / "ptune"

FOLDERS = ("src", "tests", "benchmarks", "scripts")


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "--no-cache"),
        ("ruff", "format", "--check", "--no-cache", *FOLDERS),
        ("mypy", "--cache-dir", "/dev/null"),
    ],
)
def test_nothing_to_mend(command):
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )
    if "No module named" in done.stderr:
        pytest.skip(f"{command[0]} is not installed")
    assert done.returncode == 0, done.stdout


NOTHING_SAYS = {"own", "found", "told", "felt", "made", "way", "say", "at", "look"}


def names_bound_in(path: pathlib.Path) -> Iterator[tuple[str, int]]:
    """The names that a file gives to variables, arguments, functions and classes, with their
    lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node.lineno


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_name_says_what_it_holds(folder):
    empty = [
        f"{path}:{line} {name}"
        for path in (ROOT / folder).rglob("*.py")
        for name, line in names_bound_in(path)
        if name.strip("_") in NOTHING_SAYS
    ]
    assert not empty, empty


@functools.cache
def trees_of_the_source() -> dict[pathlib.Path, ast.Module]:
    """The parsed files of ptune itself."""
    return {
        path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(SOURCE.rglob("*.py"))
    }


def nodes_of_the_source(*kinds: type) -> Iterator[tuple[str, Any]]:
    """The syntax nodes of some kinds in ptune itself, each behind its file and line."""
    for path, tree in trees_of_the_source().items():
        for node in ast.walk(tree):
            if isinstance(node, kinds):
                yield f"{path}:{node.lineno}", node


CALLED_BY_LIBRARIES = {
    "attend": "transformers calls it as the attention of a layer",
}


def positional_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The parameters that may be given by position, but for self and cls."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def test_more_than_four_values_go_by_keyword():
    many = [
        f"{place} {node.name}"
        for place, node in nodes_of_the_source(ast.FunctionDef, ast.AsyncFunctionDef)
        if len(positional_parameters(node)) > 4 and node.name not in CALLED_BY_LIBRARIES
    ]
    assert not many, many


def test_a_comprehension_has_at_most_two_clauses():
    """Each ``for`` and each ``if`` is one; a comprehension within another counts apart."""
    long = [
        f"{place} {ast.unparse(node)}"
        for place, node in nodes_of_the_source(
            ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp
        )
        if sum(1 + len(clause.ifs) for clause in node.generators) > 2
    ]
    assert not long, long


@functools.cache
def classes_of_the_source() -> dict[str, list[ast.ClassDef]]:
    """The classes of ptune by their names."""
    classes: dict[str, list[ast.ClassDef]] = {}
    for _, node in nodes_of_the_source(ast.ClassDef):
        classes.setdefault(node.name, []).append(node)
    return classes


def bases_of(definition: ast.ClassDef) -> Iterator[ast.ClassDef]:
    """The classes of ptune from which a class inherits, by their names."""
    for name in (ast.unparse(base).split("[")[0] for base in definition.bases):
        for base in classes_of_the_source().get(name, ()):
            yield base
            yield from bases_of(base)


def public_members(definition: ast.Module | ast.ClassDef) -> list[Any]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [
        node
        for node in definition.body
        if isinstance(node, kinds) and not node.name.startswith("_")
    ]


DOCUMENTED_BY_LIBRARIES = {"torch.autograd.Function": {"forward", "backward"}}


def documented_in_a_base(definition: ast.ClassDef) -> set[str]:
    of_libraries = [DOCUMENTED_BY_LIBRARIES.get(ast.unparse(base), ()) for base in definition.bases]
    members = [member for base in bases_of(definition) for member in public_members(base)]
    documented = {member.name for member in members if ast.get_docstring(member)}
    return documented.union(*of_libraries)


def test_a_public_name_has_a_docstring():
    """A method that overrides one with a docstring may leave it to that."""
    lacking = []
    for path, tree in trees_of_the_source().items():
        for member in public_members(tree):
            names = [member.name] if not ast.get_docstring(member) else []
            if isinstance(member, ast.ClassDef):
                documented = documented_in_a_base(member)
                names += [
                    f"{member.name}.{method.name}"
                    for method in public_members(member)
                    if not ast.get_docstring(method) and method.name not in documented
                ]
            lacking += [f"{path} {name}" for name in names]
    assert not lacking, lacking


def test_a_file_of_tests_runs_alone():
    """What files of tests of several folders share stands beside these folders: pytest finds a file
    in another folder of tests only where it collects that folder too."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if module and module.startswith("test_"):
                assert (path.parent / f"{module}.py").exists(), f"{path} imports from {module}"

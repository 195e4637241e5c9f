"""The limits that keep the code easy to find one's way in: sizes, names, and tests beside what they test."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGE, TESTS = ROOT / "pipeline", ROOT / "tests"
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({path.parent for path in MODULES})
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}


def test_no_module_has_more_than_350_lines() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {path: n for path, n in lengths.items() if n > 350} == {}


def test_no_folder_has_more_than_13_modules() -> None:
    sizes = Counter(path.parent for path in MODULES)
    assert {folder: n for folder, n in sizes.items() if n > 13} == {}


def test_no_two_public_classes_have_one_name() -> None:
    classes = [
        node.name
        for tree in TREES.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name[0] != "_"
    ]
    assert len(classes) > 100
    assert {name for name, n in Counter(classes).items() if n > 1} == set()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_each_package_says_what_lives_there(folder: Path) -> None:
    assert len((ast.get_docstring(TREES[folder / "__init__.py"]) or "").split()) >= 5


def test_the_folders_of_the_tests_are_those_of_the_package() -> None:
    tested = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    besides = {Path("docs"), Path("notebooks")}
    assert {folder for folder in tested - besides if not (PACKAGE / folder).is_dir()} == set()


def test_names_of_tests_are_under_80_characters() -> None:
    names = [
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert len(names) > 500
    assert [name for name in names if len(name) >= 80] == []

"""The rules of the house, checked on the source text itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import polyres

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "polyres"
SOURCES = sorted(PACKAGE.rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_ARGUMENTS = 8
# pydantic hands the fields of a config over as keywords.
KEYWORDS_ALLOWED = {("core/config.py", "__call__")}

sources = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.strip()


# -- rooms ------------------------------------------------------------------------------------------------------------


def test_every_package_is_a_room_of_the_import_contract() -> None:
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    rooms = {name for layer in layers for name in re.findall(r"\w+", layer)}
    required = {name for layer in layers if "(" not in layer for name in re.findall(r"\w+", layer)}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= rooms
    assert required <= packages
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_every_folder_with_code_is_a_package() -> None:
    assert {path.parent for path in SOURCES} == {path.parent for path in PACKAGE.rglob("__init__.py")}


PUBLIC = {PACKAGE / "metrics" / "__init__.py"}
"""Packages that name functions for others to import: polyres.metrics.track_score and its kin."""


@pytest.mark.parametrize(
    "path", sorted({*PACKAGE.glob("*/**/__init__.py")} - PUBLIC), ids=lambda path: path.parent.name
)
def test_packages_hold_a_docstring_and_nothing_else(path: Path) -> None:
    body = ast.parse(text_of(path)).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)
    assert isinstance(body[0].value, ast.Constant)


def test_importing_polyres_loads_no_heavy_library_and_no_room() -> None:
    code = (
        "import sys, polyres; print(*(n for n in sys.modules if n in ('torch', 'numpy') or n.startswith('polyres.')))"
    )
    assert python(code) == ""


def test_the_separator_loads_on_first_use() -> None:
    code = "import sys, polyres; print(polyres.load_separator.__module__, 'torch' in sys.modules)"
    assert python(code) == "polyres.separation.load True"


def test_public_names_are_listed_and_others_refused() -> None:
    assert set(polyres.__all__) <= set(dir(polyres))
    with pytest.raises(
        AttributeError, match=r"no attribute 'load_seperator'; public names: __version__, load_separator"
    ):
        polyres.load_seperator  # type: ignore[attr-defined]  # noqa: B018


def test_the_version_is_told_once() -> None:
    assert polyres.__version__ == PROJECT["project"]["version"]
    assert f"## [{polyres.__version__}]" in text_of(ROOT / "CHANGELOG.md")


# -- code -------------------------------------------------------------------------------------------------------------


@sources
def test_files_and_functions_are_short(path: Path) -> None:
    assert len(text_of(path).splitlines()) <= MAX_FILE_LINES
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions(path) if f.end_lineno is not None}
    assert {name: lines for name, lines in long.items() if lines > MAX_FUNCTION_LINES} == {}


@sources
def test_functions_take_few_and_named_arguments(path: Path) -> None:
    for function in functions(path):
        arguments = function.args
        count = len([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs])
        count -= bool(arguments.args) and arguments.args[0].arg in ("self", "cls")
        # one argument per option of the command line, or as demucs has them
        as_given = path.parent.name == "cli" or path == PACKAGE / "compat" / "demucs" / "api.py"
        assert as_given or count <= MAX_ARGUMENTS, f"{function.name} takes {count} arguments"
        allowed = (path.relative_to(PACKAGE).as_posix(), function.name) in KEYWORDS_ALLOWED
        assert arguments.kwarg is None or allowed, f"{function.name} takes **{arguments.kwarg.arg}"


@sources
def test_annotations_are_never_evaluated_on_import(path: Path) -> None:
    tree = ast.parse(text_of(path))
    assert len(tree.body) == 1 or "from __future__ import annotations" in text_of(path)


@sources
def test_nothing_loads_loosely_or_is_left_open(path: Path) -> None:
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") != "zip":
            loose = [k for k in node.keywords if k.arg == "strict" and ast.unparse(k.value) == "False"]
            assert not loose, f"strict=False in line {node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"
        if isinstance(node, ast.Name):
            assert node.id != "NotImplementedError", f"line {node.lineno}"
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text_of(path))


@sources
def test_sound_files_come_in_by_one_door(path: Path) -> None:
    # audio/opening.py decides what may be opened; a second way in would be one without its limits.
    if path.relative_to(PACKAGE).as_posix() == "audio/opening.py":
        return
    for node in ast.walk(ast.parse(text_of(path))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in {"av.open", "soundfile.read", "soundfile.info", "soundfile.blocks"}, f"line {node.lineno}"
        if called == "soundfile.SoundFile":
            assert "'w'" in [ast.unparse(argument) for argument in node.args], f"line {node.lineno}"


# -- pages and commands -----------------------------------------------------------------------------------------------


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), flags=re.MULTILINE))


def test_every_make_target_is_explained() -> None:
    shown = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, check=True, text=True).stdout
    assert make_targets() == set(re.findall(r"^  make ([a-z-]+) +\S", shown, flags=re.MULTILINE))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_on_the_pages_exist(path: Path) -> None:
    from polyres.cli.main import COMMANDS

    known = set(COMMANDS)
    lines = re.findall(r"^ *(?:\$ )?((?:make|polyres|\.venv/bin/polyres) .*)$", code_of(path), flags=re.MULTILINE)
    for line in lines:
        program, word = re.sub(r"\b[A-Z]+=\S+ ?", "", line).split()[:2]
        assert word in (make_targets() if program == "make" else known) or word.startswith("-"), line


def code_of(path: Path) -> str:
    fenced = re.findall(r"^```\w*\n(.*?)^```", text_of(path), flags=re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`((?:make|polyres) [^`]+)`", text_of(path))
    return "\n".join([*fenced, *inline])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", text_of(path)):
        assert "://" in target or (path.parent / target).exists(), target


def test_the_project_speaks_of_itself_alone() -> None:
    # Written in two halves, so that this file passes its own test.
    halves = [("/wo", "rk/"), ("/op", "t/"), ("/ro", "ot/"), ("/ho", "me/"), ("pypi.", "org"), ("python", "hosted")]
    halves += [("pytorch.", "org/whl"), ("/tm", "p/team")]
    forbidden = re.compile("|".join(re.escape(first + second) for first, second in halves))
    folders = [ROOT / name for name in ("src", "tests", "docs", "recipes", "benchmarks", ".ci")]
    files = [path for folder in folders if folder.exists() for path in folder.rglob("*")] + list(ROOT.glob("*"))
    for path in files:
        if path.is_file() and path.suffix in {"", ".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json"}:
            found = forbidden.search(path.read_text(encoding="utf-8", errors="replace"))
            assert found is None, f"{path.relative_to(ROOT)}: {found[0]}"


def test_every_constraint_is_pinned_and_torch_is_the_one_of_the_makefile() -> None:
    lines = text_of(ROOT / "constraints.txt").split()
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", line) for line in lines)
    assert re.search(r"^TORCH := (\S+)$", text_of(ROOT / "Makefile"), flags=re.MULTILINE)[1] in lines  # type: ignore[index]


def test_every_requirement_is_pinned_in_the_constraints() -> None:
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in text_of(ROOT / "constraints.txt").split()}
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]
    names = {re.match(r"[A-Za-z0-9_.-]+", line)[0].lower().replace("_", "-") for line in wanted}  # type: ignore[index]
    assert names - {"polyres"} <= pinned


def test_every_test_that_the_page_on_security_names_is_there() -> None:
    named = re.findall(r"`(tests/[a-z_/]+\.py)(?:::(\w+))?`", text_of(ROOT / "docs" / "SECURITY.md"))
    assert len(named) > 10
    for path, function in named:
        assert f"def {function or ''}" in text_of(ROOT / path), f"{path}::{function}"

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import typer.main
from typer import rich_utils

import polyres
from polyres.cli import main as cli
from polyres.core.errors import InputError, PolyresError


def with_command(monkeypatch: pytest.MonkeyPatch, command: Callable[..., None]) -> None:
    module = ModuleType("polyres.cli.probe")
    vars(module)["probe"] = command
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(cli, "COMMANDS", {"probe": "A command of the tests."})


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"polyres {polyres.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_groups(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 0
    shown = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert f" {name} " in shown


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_list_has_the_first_line_of_each_command(name: str) -> None:
    first, _, _ = cli.load_command(name).help.partition("\n\n")
    assert cli.COMMANDS[name] == " ".join(first.split())


def test_every_module_with_a_command_is_listed() -> None:
    files = Path(cli.__file__).parent.glob("*.py")
    assert set(cli.COMMANDS) == {path.stem for path in files if path.stem not in ("__init__", "main")}


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for inner, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, f"{name} {inner}")


def test_every_help_shows_every_word_of_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Brackets such as `[drums, bass]` would be swallowed as markup."""
    monkeypatch.setattr(rich_utils, "MAX_WIDTH", 1000)
    swallowed = []
    for top in cli.COMMANDS:
        for name, command in commands(cli.load_command(top), top):
            print(command.get_help(typer.Context(command, info_name=name)))
            shown = "".join(re.findall(r"[^\s│]", capsys.readouterr().out))
            texts = [getattr(part, name, None) for part in (command, *command.params) for name in ("help", "epilog")]
            lines = [line.replace("\\[", "[") for text in texts if text for line in text.splitlines()]
            swallowed += [f"{name}: {line}" for line in lines if "".join(line.split()) not in shown]
    assert not swallowed
    assert cli.main(["listen", "new", "--help"]) == 0
    assert "stems: [drums, bass]" in capsys.readouterr().out


def test_a_command_that_ends_well_returns_0(monkeypatch: pytest.MonkeyPatch) -> None:
    with_command(monkeypatch, lambda: None)
    assert cli.main(["probe"]) == 0


def test_a_plugin_is_loaded_before_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_plugin_of_tests.py").write_text("print('my own part')")
    monkeypatch.setenv("POLYRES_PLUGINS", "")
    with_command(monkeypatch, lambda: print("the command"))
    assert cli.main(["--plugin", str(tmp_path / "my_plugin_of_tests.py"), "probe"]) == 0
    assert capsys.readouterr().out == "my own part\nthe command\n"


def test_a_plugin_that_fails_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--plugin", str(tmp_path / "absent.py"), "models"]) == 2
    assert capsys.readouterr().err.endswith("is no Python file; name one such as my_fusion.py\n")


def test_a_user_error_is_one_line_on_stderr_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise InputError("song.wav: no samples\ngive a longer song")

    with_command(monkeypatch, command)
    assert cli.main(["probe"]) == 2
    assert capsys.readouterr() == ("", "error: song.wav: no samples give a longer song\n")


def test_the_status_is_the_one_of_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy(PolyresError):
        exit_code = 7

    def command() -> None:
        raise Busy("busy")

    with_command(monkeypatch, command)
    assert cli.main(["probe"]) == 7


def test_a_command_may_choose_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        raise typer.Exit(143)

    with_command(monkeypatch, command)
    assert cli.main(["probe"]) == 143


def test_an_interrupt_returns_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        raise KeyboardInterrupt

    with_command(monkeypatch, command)
    assert cli.main(["probe"]) == 130


def test_an_abort_returns_130_and_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise typer.Abort

    with_command(monkeypatch, command)
    assert cli.main(["probe"]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_fault_of_the_program_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        raise RuntimeError("a fault")

    with_command(monkeypatch, command)
    with pytest.raises(RuntimeError, match="a fault"):
        cli.main(["probe"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["probe", "--pat", "x"], "No such option: --pat"),
        (["probe"], "Missing argument 'count'"),
        (["probe", "x"], "Invalid value for 'count'"),
        (["prob", "3"], "No such command 'prob'"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(count: int, path: str = "") -> None:
        del count, path

    with_command(monkeypatch, command)
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert message in err
    assert "--help shows what is allowed" in err


def test_the_module_runs_as_the_command_does() -> None:
    run = subprocess.run([sys.executable, "-m", "polyres", "--version"], capture_output=True, check=True, text=True)
    assert run.stdout == f"polyres {polyres.__version__}\n"


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys; from polyres.cli.main import main; main(['--help']);"
        "heavy = ('torch', 'numpy', 'av', 'scipy', 'importlib.metadata', 'polyres.cli.separate');"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert run.stderr == "[]\n"

"""README in both languages: its commands work as written, and both say the same; what all pages show is there."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import typer
import uvicorn

import polyres.separation.complexity.measure
from polyres.cli.main import COMMANDS, build_app, load_command, main
from tests.documents import (
    PAGES,
    RATE_HZ,
    ROOT,
    Block,
    anchors,
    blocks,
    commands,
    inline_commands,
    links,
    prose,
    shell_commands,
    tables,
    text_of,
    words_of,
    write_song,
)
from tests.following import Place
from tests.study.cases import Inline

README, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
BOTH = [README, CHINESE]
SECONDS = 1.0

LESS = {
    "polyres synth DATA/train --hours 2 --jobs 2": "--hours 0.004 --length 5 --jobs 1",
    "polyres synth DATA/valid --tracks 8 --seed 1000": "--tracks 1 --length 5",
    "polyres train recipes/cpu_small.yaml --data DATA --out RUN": (
        "--set model.channels=2 --set model.n_fft=[1024,2048] --set model.segment_samples=22050 "
        "--set data.segment_samples=22050 --set data.items_per_epoch=4 --set time_budget_s=null --set epochs=1 "
        "--set num_workers=0 --set valid.max_seconds=1 --set valid.segment_s=null"
    ),
    "polyres evaluate RUN default share --data DATA/valid": "--max-length-s 2",
    "polyres fusion RUN --data DATA/valid --out report": "--seconds 1",
    "polyres complexity n w5 released": "--seconds 0.5 --repeats 0",
    "polyres studio": "--port 0",
    "polyres listen serve STUDY": "--port 0",
}
"""What makes a command smaller than it is written; later options win over earlier ones."""

NEEDS = {
    "polyres decode song.safetensors -o again.wav": ["polyres encode song.wav -o song.safetensors"],
    "polyres train recipes/cpu_small.yaml --data DATA --out RUN": [
        "polyres synth DATA/train --hours 2 --jobs 2",
        "polyres synth DATA/valid --tracks 8 --seed 1000",
    ],
    "polyres separate song.wav --model RUN": ["polyres train recipes/cpu_small.yaml --data DATA --out RUN"],
    "polyres evaluate RUN default share --data DATA/valid": [
        "polyres train recipes/cpu_small.yaml --data DATA --out RUN"
    ],
    "polyres fusion RUN --data DATA/valid --out report": ["polyres train recipes/cpu_small.yaml --data DATA --out RUN"],
    "polyres paper studies/debug --out paper": ["polyres study recipes/studies/debug.yaml"],
    "polyres listen serve STUDY": ["polyres listen new STUDY.yaml"],
    "polyres listen analyse STUDY": [
        "polyres listen new STUDY.yaml",
        "polyres listen simulate STUDY --listeners 6",
    ],
}
"""Commands that must have been given before; in the page they come before, too."""

OFFLINE = {
    "polyres separate song.wav --model htdemucs": r"cannot download htdemucs \(.*\); put http.* into the folder .*",
    "polyres ladder album/ --codec audioldm2": r"cannot download audioldm2 \(.*hf download cvssp/audioldm2 .*BY-NC-SA",
}
"""Commands that fetch weights, and how they end where there is no network."""

SERVERS = {"polyres studio": r"studio: (http\S+)", "polyres listen serve STUDY": r"listeners: *(http\S+)"}
"""Commands that serve until they are stopped, and how they tell where."""


LEAVES = {
    "polyres separate album/ --format flac --stems vocals,drums": [
        f"separated/polyres-small/{name}/{stem}.flac" for name in ("one", "two") for stem in ("vocals", "drums")
    ],
    "polyres separate song.wav --two-stems vocals": ["separated/polyres-small/song/no_vocals.wav"],
    "polyres reconstruct song.mp3 --plots": ["reconstructed/*/song/comparison.png"],
    "polyres decode song.safetensors -o again.wav": ["again.wav"],
    "polyres separate song.wav --model RUN": ["separated/RUN/song/drums.wav"],
    "polyres evaluate RUN default share --data DATA/valid": ["scores/scores.jsonl", "scores/tables.md"],
    "polyres fusion RUN --data DATA/valid --out report": ["report/report.md", "report/*.png"],
    "polyres study recipes/studies/debug.yaml": ["studies/debug/rows.jsonl", "studies/debug/report.md"],
    "polyres paper studies/debug --out paper": ["paper/index.html", "paper/claims.md"],
    "polyres listen analyse STUDY": ["STUDY/report/report.html"],
}
"""What a command must have left behind."""

SAYS = {
    "polyres models": r"polyres-small.*\n(.*\n)*.*htdemucs",
    "polyres --help": r"separate(.*\n)*.*studio",
    "polyres complexity n w5 released": r"(?s)w5.*released",
}
"""What a command must have said."""

SLOW = {
    "polyres complexity n w5 released",
    "polyres study recipes/studies/debug.yaml",
    "polyres paper studies/debug --out paper",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Place:
    return Place(folder, LESS, NEEDS)


@pytest.fixture
def place(shared: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(shared.folder)
    monkeypatch.setenv("POLYRES_CACHE", str(shared.folder / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    # In processes of their own most of the time would go into starting them.
    monkeypatch.setattr("polyres.cli.study._backend", lambda plan, jobs, ray: Inline())
    monkeypatch.setattr(
        polyres.separation.complexity.measure, "measure_apart", polyres.separation.complexity.measure.measure
    )
    return shared


def polyres_commands() -> list[str]:
    return [line for line in shell_commands(README) if line.startswith("polyres ")]


# -- commands ---------------------------------------------------------------------------------------------------------


def ordinary() -> list[Any]:
    """Commands that end by themselves, without a network."""
    plain = [line for line in polyres_commands() if line not in {*OFFLINE, *SERVERS}]
    return [pytest.param(line, marks=[pytest.mark.slow] if line in SLOW else []) for line in plain]


@pytest.mark.parametrize("command", ordinary())
def test_a_command_works(command: str, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.give(command, capsys) == 0, place.said[command]
    for path in LEAVES.get(command, []):
        assert any(place.folder.glob(path)), path
    assert re.search(SAYS.get(command, ""), place.said[command])


@pytest.mark.parametrize("command", OFFLINE)
def test_without_a_network_a_command_says_what_to_do(
    command: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command in polyres_commands()
    assert place.give(command, capsys) == 2
    error = place.said[command].splitlines()[-1]
    assert re.fullmatch(rf"error: {OFFLINE[command]}.*", error)


@pytest.mark.parametrize("command", SERVERS)
def test_a_server_answers(
    command: str, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command in polyres_commands()
    for needed in NEEDS.get(command, []):
        assert place.give(needed, capsys) == 0
    servers: list[uvicorn.Server] = []

    class Kept(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            servers.append(self)

    monkeypatch.setattr(uvicorn, "Server", Kept)
    capsys.readouterr()
    thread = threading.Thread(target=main, args=[words_of(f"{command} {LESS[command]}")])
    thread.start()
    try:
        while not (servers and servers[0].started):
            assert thread.is_alive(), capsys.readouterr().err
            time.sleep(0.05)
        address = re.search(SERVERS[command], capsys.readouterr().out)
        assert address is not None
        with urllib.request.urlopen(address[1], timeout=60) as answer:
            assert "<html" in answer.read().decode()
    finally:
        for server in servers:
            server.should_exit = True
        thread.join(60)


def test_the_first_command_is_make_and_calls_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [line for line in shell_commands(README) if line.startswith("make ")]
    assert made == ["make separate SONG=song.mp3", "make test"]
    for command, called in zip(made, ('.venv/bin/polyres separate "$POLYRES_SONG"', "-m pytest"), strict=True):
        dry = ["make", "-n", "-C", str(ROOT), *words_of(command)]
        run = subprocess.run(dry, capture_output=True, text=True, check=True)
        assert called in run.stdout.replace("$$", "$")
    monkeypatch.chdir(tmp_path)
    write_song(tmp_path / "song.mp3", 1.0)
    assert main(["separate", "song.mp3"]) == 0
    stems = {path.stem for path in tmp_path.glob("separated/polyres-small/song/*.wav")}
    assert stems == {"drums", "bass", "other", "vocals"}


@pytest.mark.parametrize(
    "block", [block for block in blocks(README) if block.language == "python"], ids=lambda b: b.heading
)
def test_python_on_the_page_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_song(tmp_path / "song.mp3", 1.0)
    wave = 0.1 * torch.randn(2, RATE_HZ // 2, generator=torch.Generator().manual_seed(0))
    names: dict[str, Any] = {"wave": wave, "sample_rate_hz": RATE_HZ}
    exec(compile(block.text, README.name, "exec"), names)
    assert set(names["stems"]) == {"drums", "bass", "other", "vocals"}
    assert all(stem.shape == wave.shape for stem in names["stems"].values())
    assert names["latent"].num_scalars > 0
    assert names["again"].shape == wave.shape
    assert (tmp_path / "separated" / "polyres-small" / "song" / "drums.wav").is_file()


@pytest.mark.parametrize("command", sorted({c for page in PAGES for c in inline_commands(page) if "benchmarks/" in c}))
def test_benchmarks_that_are_named_exist_with_their_options(command: str) -> None:
    script, *words = words_of(command)
    text = text_of(ROOT / script)
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert f'"{option}"' in text, option


# -- both languages ---------------------------------------------------------------------------------------------------


def code_of(block: Block) -> list[str]:
    """A block without its comments."""
    return [ast.unparse(ast.parse(block.text))] if block.language == "python" else commands(block)


def test_both_languages_show_the_same_code() -> None:
    assert [code_of(block) for block in blocks(CHINESE)] == [code_of(block) for block in blocks(README)]


def test_both_languages_have_the_same_headings_links_and_pictures() -> None:
    def shape(page: Path) -> tuple[list[str], list[str]]:
        text = prose(page)
        other = {"README.zh-CN.md", "README.md"}
        return re.findall(r"^#+", text, flags=re.MULTILINE), [link for link in links(page) if link not in other]

    assert shape(CHINESE) == shape(README)
    assert "README.zh-CN.md" in [*links(README)]
    assert "README.md" in [*links(CHINESE)]


def test_both_languages_have_the_same_figures_in_their_tables() -> None:
    def figures(page: Path) -> list[list[list[str]]]:
        return [[numbers(" ".join(row)) for row in table] for table in tables(page)]

    assert figures(CHINESE) == figures(README)
    assert sum(len(row) for table in figures(README) for row in table) > 50


def numbers(text: str) -> list[str]:
    """All numbers, in whatever way a language groups their digits."""
    return re.findall(r"[−-]?\d+(?:[.,]\d+)*(?:e[−+-]?\d+)?", re.sub(r"(?<=\d)[ \u202f](?=\d{3}\b)", "", text))


def test_both_languages_have_the_same_figures_in_their_text() -> None:
    def sections(page: Path) -> list[list[str]]:
        parts = re.split(r"^#+ .*$", prose(page), flags=re.MULTILINE)
        return [sorted(numbers(re.sub(r"\]\([^)]*\)|^\|.*$", "", part, flags=re.MULTILINE))) for part in parts]

    assert sections(CHINESE) == sections(README)


# -- all pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_into_pages_find_their_heading(page: Path) -> None:
    for link in links(page):
        target, _, anchor = link.partition("#")
        if anchor and "://" not in link:
            assert anchor in anchors((page.parent / target) if target else page), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_are_pictures(page: Path) -> None:
    for link in links(page):
        if link.endswith(".png"):
            assert (page.parent / link).read_bytes().startswith(b"\x89PNG"), link


@functools.cache
def command_tree() -> dict[str, Any]:
    """All commands by their words."""
    found: dict[str, Any] = {}

    def add(words: str, command: Any) -> None:
        found[words] = command
        for name, below in getattr(command, "commands", {}).items():
            add(f"{words} {name}", below)

    root = typer.main.get_command(build_app())
    add("polyres", root)
    for name in COMMANDS:
        add(f"polyres {name}", load_command(name))
    return found


def check_options(line: str, tree: dict[str, Any]) -> None:
    """Fail where a command line names an option that its command does not have."""
    words = re.sub(r"[…;|].*$", "", line).split()
    path = "polyres"
    known = set(options_of(tree[path]))
    for word in words[words.index("polyres") + 1 :]:
        if f"{path} {word}" in tree:
            path = f"{path} {word}"
            known = set(options_of(tree[path]))
        elif word.startswith("-") and not re.match(r"-\d", word):
            assert word.partition("=")[0].rstrip(",.)") in known, f"{line}: {path} has no {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_the_pages_have_the_options_they_are_shown_with(page: Path) -> None:
    tree = command_tree()
    for line in [*shell_commands(page, ("", "bash", "sh")), *inline_commands(page)]:
        if "polyres " in line:
            check_options(line, tree)


def test_every_help_has_examples_with_options_that_exist() -> None:
    tree = command_tree()
    for path, command in tree.items():
        shown = f"{command.help or ''}\n\n{command.epilog or ''}"
        lines = [line for line in re.split(r"\n\n|Example: ", shown) if re.match(r" *polyres [a-z-]", line)]
        for line in lines:
            check_options(line.partition(" — ")[0], tree)
            assert f"polyres {line.split()[1]}" in tree, line
        tells = path == "polyres models" or path.startswith(("polyres listen ", "polyres studio "))  # told above
        assert lines or tells or hasattr(command, "commands"), f"{path} has no example"


def options_of(command: Any) -> Iterator[str]:
    yield from ("--help", "-h")
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)

"""How-to: every command works, and every recipe for a part of one's own is followed to the letter."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.cli.main import main
from polyres.codec.base import CODECS
from polyres.codec.enhance.enhancers import ENHANCERS
from polyres.codec.post_filter import POST_FILTERS
from polyres.core import catalogue as loading
from polyres.core.catalogue import Catalogue
from polyres.datasets.layouts import LAYOUTS
from polyres.metrics.catalogue import METRICS
from polyres.nn.attention import ATTENTION
from polyres.nn.fusion.base import OUTPUT_FUSION
from polyres.separation.engines import ENGINES
from tests.documents import ROOT, Block, blocks, commands, shell_commands, write_song, write_track
from tests.following import Place
from tests.study.cases import Inline

PAGE = ROOT / "docs" / "howto" / "own_parts.md"
CATALOGUES: tuple[Catalogue[object], ...] = (
    LAYOUTS,  # type: ignore[assignment]
    METRICS,
    CODECS,
    ATTENTION,
    ENHANCERS,
    OUTPUT_FUSION,
    POST_FILTERS,
    ENGINES,
)
RECIPES = [heading for heading in dict.fromkeys(block.heading for block in blocks(PAGE)) if heading.startswith("A")][1:]
ALSO = {"A study": ["A fusion"]}
"""Recipes whose files another one uses."""

SLOW = {"A study", "A kind of attention"}


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave no plugin behind for other tests."""
    for catalogue in CATALOGUES:
        monkeypatch.setattr(catalogue, "_factories", {**catalogue._factories})
        monkeypatch.setattr(catalogue, "_summaries", {**catalogue._summaries})
    monkeypatch.setattr(loading, "_LOADER", loading._Loader())
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(loading.PLUGINS_VARIABLE, "")
    yield
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the songs of recipes are made, once for all."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def place(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the page takes for granted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLYRES_CACHE", str(cache))
    monkeypatch.setattr("polyres.cli.study._backend", lambda plan, jobs, ray: Inline())
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    write_song(tmp_path / "song.wav", 2.0)
    for number, name in enumerate(("one", "two")):
        track = write_track(tmp_path / "SONGS" / name, 2.0, seed=number)
        (tmp_path / "FLAT").mkdir(exist_ok=True)
        for stem in track.iterdir():
            (tmp_path / "FLAT" / f"{name}-{stem.name}").write_bytes(stem.read_bytes())
    return tmp_path


def section(heading: str) -> list[Block]:
    return [block for block in blocks(PAGE) if block.heading == heading]


def write_files(heading: str, folder: Path) -> list[str]:
    """Write the files of a recipe: each is named at the beginning of the paragraph before its block."""
    names = []
    for block in section(heading):
        if block.language in ("python", "yaml"):
            (name,) = re.findall(r"^`(my_\w+\.(?:py|yaml))`: ", block.before.strip().rpartition("\n\n")[2])
            (folder / name).write_text(block.text, encoding="utf-8")
            names.append(name)
    return names


def scores(folder: Path) -> dict[str, list[float]]:
    rows = [json.loads(line) for line in (folder / "scores" / "scores.jsonl").read_text().splitlines()]
    return {key: [row["value"] for row in rows if row["metric"] == key] for key in {row["metric"] for row in rows}}


def has_stems(folder: Path, said: str) -> None:
    assert {path.stem for path in (folder / "separated" / "RUN" / "song").glob("*.wav")} == {
        "drums",
        "bass",
        "other",
        "vocals",
    }


def has_fusion(folder: Path, said: str) -> None:
    from polyres.separation.load import load_separator

    has_stems(folder, said)
    fusion = load_separator(str(folder / "RUN")).model.get_submodule("output")
    assert type(fusion).__name__ == "ByEnergy"


def has_scores(folder: Path, said: str) -> None:
    assert "RUN" in {path.name for path in folder.iterdir()}
    assert len(scores(folder)["nsdr"]) == 8
    assert "2 tracks" in said


def has_level_errors(folder: Path, said: str) -> None:
    errors = scores(folder)["level_error"]
    assert len(errors) == 16
    assert min(errors) >= 0
    assert max(errors) > 1  # the mixture is louder than each of its stems
    assert "level_error" in said


def has_engine(folder: Path, said: str) -> None:
    assert '"engine": "mirrored"' in said
    assert len([*folder.glob("separated/polyres-small/song/*.wav")]) == 4


def has_study(folder: Path, said: str) -> None:
    assert "by_energy" in (folder / "studies" / "my_study" / "report.md").read_text()
    assert (folder / "paper" / "index.html").is_file()


def has_codec(folder: Path, said: str) -> None:
    assert re.search(r"mu_law: companded samples, as on the telephone", said)
    true, rate_hz = soundfile.read(folder / "song.wav")
    again, again_hz = soundfile.read(folder / "again.wav")
    assert (again.shape, again_hz) == (true.shape, rate_hz)
    low = np.abs(np.fft.rfftfreq(len(true), 1 / rate_hz)) < 3000
    wanted, given = (np.fft.rfft(wave[:, 0])[low] for wave in (true, again))
    assert 10 * np.log10(np.sum(np.abs(wanted) ** 2) / np.sum(np.abs(wanted - given) ** 2)) > 20


def has_sounds(folder: Path, said: str) -> None:
    assert [*folder.glob("reconstructed/*/song/*.wav")]


def has_enhancer(folder: Path, said: str) -> None:
    has_sounds(folder, said)
    assert all(name in said for name in ("steady", "frequency", "gain_match"))


RESULTS: dict[str, Callable[[Path, str], None]] = {
    "A fusion": has_fusion,
    "A kind of attention": has_stems,
    "A dataset": has_scores,
    "An enhancer": has_enhancer,
    "A metric": has_level_errors,
    "An engine": has_engine,
    "A study": has_study,
    "A codec": has_codec,
    "A post filter": has_sounds,
}


def test_every_recipe_has_a_result_to_look_for() -> None:
    assert [*RESULTS] == RECIPES


@pytest.mark.slow
@pytest.mark.parametrize(
    "heading", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in RECIPES]
)
def test_a_recipe_works_to_the_letter(heading: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for needed in ALSO.get(heading, []):
        write_files(needed, place)
    assert write_files(heading, place)
    said = ""
    for command in [line for block in section(heading) if not block.language for line in commands(block)]:
        words = command.split()
        assert words[:2] == ["polyres", "--plugin"]
        status = main(words[1:])
        said += "".join(capsys.readouterr())
        assert status == 0, f"{command}: {said}"
    RESULTS[heading](place, said)


# -- the commands of the page -----------------------------------------------------------------------------------------

HOWTO = ROOT / "docs" / "HOWTO.md"
TINY = (
    "--set model.channels=2 --set model.n_fft=[1024,2048] --set model.segment_samples=22050 "
    "--set data.segment_samples=22050 --set data.items_per_epoch=4 --set time_budget_s=null --set epochs=1 "
    "--set num_workers=0 --set valid.max_seconds=1 --set valid.segment_s=null --set batch_size=2"
)
SONGS = ("polyres synth DATA/train --hours 5 --seed 1 --jobs 4", "polyres synth DATA/valid --tracks 8 --seed 1000")
LESS = {
    SONGS[0]: "--hours 0.004 --length 5 --jobs 1",
    SONGS[1]: "--tracks 1 --length 5",
    "polyres synth TRIAL --miniature": "--tracks 2 --length 5",
    "polyres train recipes/debug.yaml --out runs/debug": "--set epochs=1",
    "polyres train recipes/cpu_small.yaml --data DATA --out runs/small": TINY,
    "polyres train recipes/cpu_small.yaml --data DATA --out runs/other --set batch_size=8 --set optimiser.lr=5e-4": (
        TINY
    ),
    "polyres train recipes/cpu_small.yaml --data DATA --out runs/tuned --init runs/small": TINY,
    "polyres fusion runs/small --data SONGS --out report": "--seconds 1 --no-figures",
    "polyres study recipes/studies/debug.yaml": "--seeds 1",
}
ELSEWHERE = {
    "fetches weights": ["--model htdemucs", "export htdemucs", "--codec audioldm2 "],
    "needs recordings; tried in tests/cli/test_synth.py and tests/data": [
        "MIDI_FOLDER",
        "SYLLABLES_FOLDER",
        "LOOPS_FOLDER",
        "INSTRUMENTS_FOLDER",
        "data check MUSDB",
        "data index MUSDB",
    ],
    "takes long; tried in tests/cli with less": ["main_cpu", "polyres complexity", "polyres pack"],
    "serves; tried in tests/test_readme.py": ["listen serve", "polyres studio"],
}
"""Why commands are not given here, and what they have in common."""


def is_tried_here(command: str) -> bool:
    return command == "polyres studio export separated --out page.html" or not any(
        part in command for parts in ELSEWHERE.values() for part in parts
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_commands_of_the_page_work_one_after_the_other(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "recipes").unlink()
    follower = Place(place, LESS, {})
    for name in ("one", "two"):  # stems that another program made
        write_track(place / "separated" / "htdemucs" / name, 2.0, seed=5)
    given = [line for line in shell_commands(HOWTO) if is_tried_here(line)]
    assert len(given) > 20
    for command in given:
        assert follower.give(command, capsys) == 0, f"{command}: {follower.said[command]}"
    assert (place / "page.html").is_file()
    assert (place / "report" / "report.md").is_file()
    assert (place / "STUDY" / "report" / "report.html").is_file()

"""Every long command, killed hard at ten moments: the next start cleans up, keeps what was done, and ends as usual."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.numpy

from polyres.core.whole_files import PREFIX
from tests.studio.studios import VISITOR, song
from tests.study.cases import RECIPE, write_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no hard kill on this system"),
]
MOMENTS = 10
LIMIT_S = 300.0
LONGER = RECIPE.replace("items_per_epoch: 4", "items_per_epoch: 60").replace("epochs: 2", "epochs: 3")


@dataclass(frozen=True)
class Case:
    """A command and what it leaves.

    Attributes:
        prepare: Lays the inputs into a folder.
        words: Of the command, the first time and after a kill.
        made: What an undisturbed run and one after a kill have in common, from the folder.
        finished: Files that are final once they are there.
    """

    prepare: Callable[[Path], object]
    words: Callable[[Path], list[str]]
    made: Callable[[Path], object]
    finished: Callable[[Path], list[Path]]


def write_songs(folder: Path) -> None:
    for number in range(3):
        song(folder / "songs" / f"{number}.wav", 2 + number)


def stems_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.wav") if "stems" in path.parts and PREFIX not in str(path))


def write_training(folder: Path) -> None:
    write_study(folder, recipe=LONGER + "checkpoint_every_s: 0.3\n")


def train_words(folder: Path, *more: str) -> list[str]:
    again = ["--resume"] if (folder / "run").exists() else []
    return ["train", "tiny.yaml", "--out", "run", *again, *more]


def best_of(folder: Path) -> dict[str, str]:
    """Digests of the tensors alone: the card beside them tells the time."""
    (path,) = folder.glob("run/best*.safetensors")
    tensors = safetensors.numpy.load_file(path)
    return {name: hashlib.sha256(values.tobytes()).hexdigest() for name, values in tensors.items()}


def scores_of(folder: Path) -> list[tuple[object, ...]]:
    rows = [json.loads(line) for path in sorted(folder.rglob("scores.jsonl")) for line in path.read_text().splitlines()]
    return sorted(
        tuple(str(row.get(key)) for key in ("model", "track", "stem", "source", "metric", "value")) for row in rows
    )


def write_tracks(folder: Path) -> None:
    write_study(folder)
    for number in range(4):
        shutil.copytree(folder / "test" / "four", folder / "test" / f"more{number}")


CASES = {
    "separate": Case(
        write_songs,
        lambda folder: ["separate", "songs", "--out", "stems"],
        lambda folder: {str(path.relative_to(folder)): digest(path) for path in stems_of(folder)},
        stems_of,
    ),
    "encode": Case(
        write_songs,
        lambda folder: ["encode", "songs/2.wav", "--out", "latent.safetensors", "--overwrite"],
        lambda folder: {"latent": digest(folder / "latent.safetensors")},
        lambda folder: [],
    ),
    "train": Case(write_training, train_words, best_of, lambda folder: []),
    "train with workers": Case(
        write_training, lambda folder: train_words(folder, "--set", "num_workers=2"), best_of, lambda folder: []
    ),
    "evaluate": Case(
        write_tracks,
        lambda folder: ["evaluate", "share", "silence", "--data", "test", "--metrics", "nsdr,sdr", "--out", "scores"],
        scores_of,
        lambda folder: [],
    ),
    "study": Case(
        write_study,
        lambda folder: ["study", "study.yaml", "--out", "study"],
        scores_of,
        lambda folder: sorted(folder.glob("study/*/seed*/best*.safetensors")),
    ),
}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def start(folder: Path, words: list[str]) -> subprocess.Popen[bytes]:
    (folder / "scratch").mkdir(exist_ok=True)
    source = Path(__file__).parents[1] / "src"
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "scratch")}
    with (folder / "output.txt").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "polyres", *words], cwd=folder, env=environment, stdout=output, stderr=output
        )


def run(folder: Path, words: list[str]) -> float:
    """Run a command to its end; returns how long it took."""
    began = time.monotonic()
    process = start(folder, words)
    try:
        status = process.wait(LIMIT_S)
    finally:
        process.kill()
    said = (folder / "output.txt").read_text(errors="replace")
    assert status == 0, said
    assert "Traceback" not in said, said
    return time.monotonic() - began


def left_behind(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob(f"{PREFIX}*-*")]


@pytest.mark.parametrize("name", CASES)
def test_a_kill_at_any_moment(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    inputs, whole = tmp_path / "inputs", tmp_path / "whole"
    inputs.mkdir()
    case.prepare(inputs)
    moved(inputs, whole)
    length_s = run(whole, case.words(whole))
    expected = case.made(whole)
    assert expected
    assert left_behind(whole) == []
    cut_short = 0
    for moment in range(MOMENTS):
        folder = tmp_path / f"killed{moment}"
        moved(inputs, folder)
        process = start(folder, case.words(folder))
        time.sleep((moment + 0.5) / MOMENTS * length_s)
        process.kill()
        killed = process.wait() == -signal.SIGKILL
        cut_short += killed
        kept = {path: (digest(path), path.stat().st_mtime_ns) for path in case.finished(folder)}
        if killed:
            run(folder, case.words(folder))
        assert {path: (digest(path), path.stat().st_mtime_ns) for path in kept} == kept
        assert left_behind(folder) == []
        assert case.made(folder) == expected
        shutil.rmtree(folder)
    assert cut_short >= MOMENTS - 2  # a run may be quicker than the one that was timed


def moved(inputs: Path, folder: Path) -> None:
    """Copy the inputs; recipes that name their folder name the copy."""
    shutil.copytree(inputs, folder)
    for path in folder.glob("*.yaml"):
        path.write_text(path.read_text().replace(str(inputs), str(folder)))


def called(address: str, data: bytes | None = None) -> bytes:
    request = urllib.request.Request(address, data, VISITOR | {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def begun(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a studio and wait for its address."""
    process = start(folder, ["studio", "--port", "0", "--folder", "studio"])
    for _ in range(round(LIMIT_S / 0.05)):
        said = (folder / "output.txt").read_text(errors="replace")
        if found := re.search(r"http://[\d.:]+/", said):
            return process, found[0] + "api"
        assert process.poll() is None, said
        time.sleep(0.05)
    raise AssertionError(said)


def works_of(api: str) -> dict[str, str]:
    return {work["id"]: work["state"] for song in json.loads(called(f"{api}/songs")) for work in song["works"]}


def test_a_studio_killed_at_any_moment(tmp_path: Path) -> None:
    upload = song(tmp_path / "song.wav", 4.0).read_bytes()
    accepted: set[str] = set()
    asked: set[str] = set()
    done: dict[str, str] = {}
    for moment in range(MOMENTS + 1):
        process, api = begun(tmp_path)
        try:
            songs = json.loads(called(f"{api}/songs"))
            assert {found["id"] for found in songs} == accepted
            works = works_of(api)
            assert set(works) == asked
            for work, sound in done.items():
                assert works[work] == "done"
                assert hashlib.sha256(called(f"{api}/works/{work}/audio/drums")).hexdigest() == sound
            if moment < MOMENTS:
                new = json.loads(called(f"{api}/songs?name=tune{moment}.wav", upload))["id"]
                accepted.add(new)
                choice = json.loads(called(f"{api}/studio"))["choices"][0]["id"]
                wish = json.dumps({"choice": choice}).encode()
                asked.add(json.loads(called(f"{api}/songs/{new}/works", wish))["id"])
                time.sleep(0.3 * moment)
            else:
                for _ in range(round(LIMIT_S / 0.1)):
                    if set(works_of(api).values()) == {"done"}:
                        break
                    time.sleep(0.1)
            ready = [work for work, state in works_of(api).items() if state == "done"]
            done |= {work: hashlib.sha256(called(f"{api}/works/{work}/audio/drums")).hexdigest() for work in ready}
        finally:
            process.kill()
            process.wait()
    assert set(done) == asked
    assert len(set(done.values())) == 1
    process, _ = begun(tmp_path)
    process.terminate()
    process.wait(LIMIT_S)
    assert left_behind(tmp_path) == []

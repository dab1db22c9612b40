"""Mutated files of every kind that polyres reads; run as a program it says what reading them came to, as JSON."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from polyres.core.errors import PolyresError
from tests.audio.sound_files import sound, write_media

ROOT = Path(__file__).resolve().parents[1]
CASE_LIMIT_S = 20
ROOM_BYTES = 512 * 2**20  # what a file of some kilobytes may ask for on top of what is loaded already
TEXTS = """-1 0 -0.0 1e308 1e999 NaN .inf true null [] {} '' '3' \\u0000 \\ud800 [[[[ {{{{ &a *a <<: !!int !!bool base:
99999999999 4294967295 9223372036854775807 18446744073709551615 ../../etc/passwd /dev/zero http://x""".split()  # noqa: SIM905
NUMBERS = [value.to_bytes(size, order) for value in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF) for size in (4, 8)
           for order in ("little", "big")]  # fmt: skip

Reader = Callable[[Path], object]


@dataclass
class Outcome:
    """What the mutations of one kind came to."""

    kind: str
    refused: int = 0
    read: int = 0
    faults: list[str] = field(default_factory=list)
    worst_s: float = 0.0
    peak_mb: float = 0.0


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Change bytes in one to four places."""
    data = bytearray(content)
    # Half of all changes fall into the beginning, where headers are.
    for _ in range(int(rng.integers(1, 5))):
        span = max(1, len(data) if rng.random() < 0.5 else min(len(data), 256))
        at, size = int(rng.integers(span)), int(rng.integers(1, 64))
        way = int(rng.integers(7))
        if way == 0:
            data[at : at + 1] = bytes([data[at] ^ (1 << int(rng.integers(8)))]) if data else b"\0"
        elif way == 1:
            data[at : at + size] = b""
        elif way == 2:
            data[at:at] = data[at : at + size]
        elif way == 3:
            del data[at:]
        elif way == 4:
            new = NUMBERS[int(rng.integers(len(NUMBERS)))]
            data[at : at + len(new)] = new
        elif way == 5:
            new = TEXTS[int(rng.integers(len(TEXTS)))].encode()
            data[at : at + (len(new) if rng.random() < 0.5 else 1)] = new
        else:
            data[at : at + size] = rng.bytes(size)
    return bytes(data)


def mutated_values(value: Any, rng: np.random.Generator) -> Any:
    """Change one value, or key, of nested plain values."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = list(value)[int(rng.integers(len(value)))]
        rest = {name: inner for name, inner in value.items() if name != key}
        if rng.random() < 0.1:
            return rest
        return {**rest, key if rng.random() < 0.95 else key + "x": mutated_values(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = int(rng.integers(len(value)))
        return [*value[:at], mutated_values(value[at], rng), *value[at + 1 :]]
    odd = [None, True, -1, 0, 1, 2, -0.0, 1e308, 10**9, 10**18, 2**63, 10**80, "", "3", "x" * 9999, "/dev/zero", [], {}]
    odd += [[value], {"a": value}, value * 2 if isinstance(value, (int, float, str)) else 7]
    return odd[int(rng.integers(len(odd)))]


def mutated_safetensors(content: bytes, rng: np.random.Generator) -> bytes:
    """Change bytes anywhere, or values of the header or of the JSON inside it, its length kept right."""
    if rng.random() < 0.3:
        return mutated(content, rng)
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    body = content[8 + size :]
    way = rng.random()
    if way < 0.6:
        inner = json.loads(header["__metadata__"]["polyres"])
        changed = json.dumps(mutated_values(inner, rng))
        header["__metadata__"]["polyres"] = changed if way < 0.5 else mutated(changed.encode(), rng).decode("latin-1")
    elif way < 0.8:
        header = mutated_values(header, rng)
    else:  # another shape of as many numbers, or other numbers
        name = next(iter(set(header) - {"__metadata__"}))
        header[name]["shape"] = header[name]["shape"][::-1]
        body = rng.bytes(len(body)) if rng.random() < 0.5 else body
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def mutated_json(content: bytes, rng: np.random.Generator) -> bytes:
    """Change bytes, or values of JSON or JSON lines."""
    if rng.random() < 0.3:
        return mutated(content, rng)
    lines = content.splitlines() if content.count(b"\n") > 1 and content.startswith(b'{"') else [content]
    at = int(rng.integers(len(lines)))
    lines[at] = json.dumps(mutated_values(json.loads(lines[at]), rng)).encode()
    return b"\n".join(lines) + b"\n"


def mutated_yaml(content: bytes, rng: np.random.Generator) -> bytes:
    """Change bytes, or values of YAML, which come out as JSON, that is YAML too."""
    if rng.random() < 0.4:
        return mutated(content, rng)
    return json.dumps(mutated_values(yaml.safe_load(content), rng)).encode()


WAYS = {".safetensors": mutated_safetensors, ".json": mutated_json, ".jsonl": mutated_json, ".yaml": mutated_yaml}


def latent_kind(codec: str) -> Callable[[Path], tuple[Path, Reader]]:
    def make(folder: Path) -> tuple[Path, Reader]:
        from polyres.codec.latent import Latent
        from polyres.codec.load import codec_for, load_codec

        whole = load_codec(codec, "cpu")
        wave = 0.1 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(3))
        path = whole.encode(wave, 22050).save(folder / "z.safetensors")
        config = dict(whole.model.config.to_dict())

        def read(path: Path) -> None:
            latent = Latent.load(path)
            same = latent.codec == whole.name and dict(latent.config) == config
            for block in (whole if same else codec_for(latent, "cpu")).decode_blocks(latent):
                assert bool(torch.isfinite(block).all())

        return path, read

    return make


def network_kind(folder: Path) -> tuple[Path, Reader]:
    from polyres.codec.networks import build_network, load_network, save_network

    network = build_network("mel_refiner", {"channels": 1, "width": 4, "depth": 2})
    return save_network("mel_refiner", network, folder / "n.safetensors"), load_network


def separator_kind(folder: Path) -> tuple[Path, Reader]:
    from polyres.separation.model import Separator, SeparatorConfig
    from polyres.separation.weights import load_separator_weights, save_separator

    config = {"channels": 4, "depth": 2, "n_fft": [512, 1024], "sources": ["a", "b"], "bottleneck_channels": 8}
    known = {key: value for key, value in config.items() if key in SeparatorConfig.model_fields}
    return save_separator(Separator(SeparatorConfig.from_dict(known)), folder / "w.safetensors"), load_separator_weights


def checkpoint_kind(folder: Path) -> tuple[Path, Reader]:
    from polyres.training.checkpoint import load_state, save_state

    save_state(folder / "c.safetensors", {"model/a": torch.zeros(3, 4)}, {"state": {"step": 3, "elapsed_s": 1.0}})
    return folder / "c.safetensors", load_state


def recipe_kind(folder: Path) -> tuple[Path, Reader]:
    from polyres.separation.training.task import TrainConfig

    shutil.copy(ROOT / "recipes" / "base.yaml", folder)
    shutil.copy(ROOT / "recipes" / "debug.yaml", folder)
    return folder / "debug.yaml", TrainConfig.from_yaml


def stages_kind(folder: Path) -> tuple[Path, Reader]:
    from polyres.codec.staged.config import read_stages

    text = "codec: polyres_wave\nenhancer: {name: gain_match, strength: 0.5}\npost_filters: [{name: median}]\nseed: 3\n"
    (folder / "s.yaml").write_text(text)
    return folder / "s.yaml", read_stages


def slakh_kind(folder: Path) -> tuple[Path, Reader]:
    from polyres.datasets.collections import SlakhLayout

    track = folder / "Track00001"
    track.mkdir()
    (track / "metadata.yaml").write_text("stems:\n  S00: {is_drum: true, inst_class: Drums, audio_rendered: true}\n")
    return track / "metadata.yaml", lambda path: SlakhLayout().find(folder, ("drums", "other"))


def moises_kind(folder: Path) -> tuple[Path, Reader]:
    from polyres.datasets.collections import MoisesLayout

    (folder / "a").mkdir()
    stems = [{"stemName": "bass", "tracks": [{"id": "x", "extension": "wav"}]}]
    (folder / "a" / "data.json").write_text(json.dumps({"song": "S", "artist": "A", "stems": stems}))
    return folder / "a" / "data.json", lambda path: MoisesLayout().find(folder, ("bass", "other"))


def manifest_kind(folder: Path) -> tuple[Path, Reader]:
    from polyres.batch.manifest import InputId, Manifest, StemRecord, manifest_text, read_manifest

    values = dict.fromkeys(InputId.__dataclass_fields__, 1)
    text = manifest_text(Manifest(InputId(**values), {"a.wav": StemRecord("a", {"shifts": 1}, 1.0)}), {})
    (folder / "polyres.json").write_text(text)
    from polyres.batch.manifest import MANIFEST_NAME

    (folder / "polyres.json").rename(folder / MANIFEST_NAME)
    return folder / MANIFEST_NAME, lambda path: read_manifest(path.parent)


def rows_kind(folder: Path) -> tuple[Path, Reader]:
    from polyres.study.evaluate.rows import RowFile, ScoreRow

    rows = [ScoreRow("m", "all", f"t{n}", "drums", "sdr", "dB", 1.5) for n in range(3)]
    RowFile(folder / "rows.jsonl").append(rows)
    return folder / "rows.jsonl", RowFile


def run_kind(folder: Path) -> tuple[Path, Reader]:
    from polyres.separation.training.run_table import read_run
    from polyres.separation.training.task import TrainConfig

    (folder / "config.yaml").write_text(TrainConfig.from_yaml(ROOT / "recipes" / "debug.yaml").to_yaml())
    row = {"step": 3, "elapsed_s": 1.0, "epoch": 1, "progress": 0.5, "valid": {"raw": {"score": 1.0}},
           "best": {"score": 1.0, "valid": {}}}  # fmt: skip
    (folder / "metrics.jsonl").write_text((json.dumps(row) + "\n") * 2)
    return folder / "metrics.jsonl", lambda path: read_run(folder)


def study_kind(folder: Path) -> tuple[Path, Reader]:
    from polyres.study.run.files import FORMAT, STUDY_FILE, read_study

    values = {"format": FORMAT, "name": "s", "arms": [{"name": "a", "settings": {}}], "metrics": ["sdr"], "seeds": [1],
              "title": "T", "question": "Q", "base": "b.yaml", "reference": "a", "primary": "sdr", "data": {"a": 1},
              "commit": None, "versions": {"torch": "2"}}  # fmt: skip
    (folder / STUDY_FILE).write_text(json.dumps(values))
    return folder / STUDY_FILE, lambda path: read_study(folder)


def listen_kind(folder: Path) -> tuple[Path, Reader]:
    from polyres.listen.design.files import load_study, save_study
    from tests.listen.studies import a_study

    study = a_study(pages=2)
    for page in (*study.training, *study.pages):
        for name in page.files():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    save_study(study, folder)
    return folder / "study.json", lambda path: load_study(path.parent)


def webmushra_kind(folder: Path) -> tuple[Path, Reader]:
    import soundfile

    from polyres.listen.design.webmushra import import_webmushra

    for name in ("r", "a", "b"):
        soundfile.write(folder / f"{name}.wav", sound(9000, seed=ord(name)).T, 44100)
    (folder / "c.yaml").write_text("""
testname: T
testId: t
pages:
  - {type: generic, id: first, name: Welcome, content: "<p>Hello</p>"}
  - - random
    - type: mushra
      id: m1
      createAnchor35: true
      reference: r.wav
      stimuli: {C1: a.wav, C2: b.wav}
  - {type: finish, name: End, content: bye, questionnaire: [{type: text, label: Age, name: age}]}
""")

    def read(path: Path) -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)
        import_webmushra(path, folder / "out")

    return folder / "c.yaml", read


def sound_kind(ending: str) -> Callable[[Path], tuple[Path, Reader]]:
    def make(folder: Path) -> tuple[Path, Reader]:
        from polyres.audio.sources import FileSource

        path = folder / f"a.{ending}"
        if ending in ("mp3", "mp4"):
            write_media(path, {"mp3": "libmp3lame", "mp4": "aac"}[ending], [sound(9000)])
        else:
            import soundfile

            soundfile.write(path, sound(9000).T, 44100)

        def read(path: Path) -> None:
            for block in FileSource(path).blocks(4096):
                assert block.ndim == 2

        return path, read

    return make


CODECS = ("polyres_wave", "polyres_wave_44k", "polyres_wave_live", "polyres_mel", "audioldm2_tiny", "polyres_wave:wide")
SOUNDS = ("wav", "flac", "mp3", "ogg", "w64", "aiff", "mp4")
KINDS: dict[str, Callable[[Path], tuple[Path, Reader]]] = {
    **{f"latent {name}": latent_kind(name) for name in CODECS},
    "network": network_kind,
    "separator": separator_kind,
    "checkpoint": checkpoint_kind,
    "recipe": recipe_kind,
    "stages": stages_kind,
    "slakh": slakh_kind,
    "moises": moises_kind,
    "manifest": manifest_kind,
    "rows": rows_kind,
    "run": run_kind,
    "study": study_kind,
    "listen": listen_kind,
    "webmushra": webmushra_kind,
    **{name: sound_kind(name) for name in SOUNDS},
}


def fuzz(kind: str, count: int, seed: int, limited: bool = False) -> Outcome:
    """Read mutations of one kind of file.

    Args:
        kind: of KINDS.
        count: how many.
        seed: of the changes.
        limited: whether the process gets no more room than ROOM_BYTES from here on, and every case CASE_LIMIT_S.

    Returns:
        What came of it.
    """
    outcome, rng = Outcome(kind), np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        path, read = KINDS[kind](Path(name))
        content = path.read_bytes()
        read(path)  # the whole file can be read, and everything is loaded
        ways = {
            ".safetensors": mutated_safetensors,
            ".json": mutated_json,
            ".jsonl": mutated_json,
            ".yaml": mutated_yaml,
        }
        change = ways.get(path.suffix, mutated)
        if limited:
            _limit_room()
        for _ in range(count):
            path.write_bytes(change(content, rng))
            _one(path, read, outcome, limited)
    return outcome


def _one(path: Path, read: Reader, outcome: Outcome, limited: bool) -> None:
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with _time_limit(limited):
            read(path)
        outcome.read += 1
    except PolyresError as error:
        outcome.refused += 1
        if "\n" in str(error) or "\r" in str(error) or len(str(error)) > 1500:
            outcome.faults.append(f"message of {len(str(error))} characters: {str(error)!r:.300}")
    except BaseException as error:
        import traceback

        frame = traceback.extract_tb(error.__traceback__)[-1]
        kept = Path(tempfile.gettempdir()) / f"fuzzed-{len(outcome.faults)}-{path.name}"
        kept.write_bytes(path.read_bytes())
        outcome.faults.append(f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno}; {kept})"[:500])
    outcome.worst_s = max(outcome.worst_s, time.monotonic() - start)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    outcome.peak_mb = max(outcome.peak_mb, grown_kb / 1024)


@contextmanager
def _time_limit(limited: bool) -> Iterator[None]:
    def late(*_: object) -> None:
        raise SystemExit(f"longer than {CASE_LIMIT_S} s")

    if limited:
        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, CASE_LIMIT_S)
    try:
        yield
    finally:
        if limited:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _limit_room() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    print(json.dumps(asdict(fuzz(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), limited=True))))

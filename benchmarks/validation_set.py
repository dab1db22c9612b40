"""Make validation tracks from tracker modules of artists that are not trained on, with held-out vocals.

python benchmarks/validation_set.py MODULES TRAINED VOCALS OUT: MODULES and TRAINED are folders of modules, and
artists of the second are left out; VOCALS is a file with the vocals of a song that is never trained on. There is one
track per artist: the excerpt in which the most stems play together, with a part of the vocals as loud as the music or
up to 6 dB below.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile

from polyres.audio.file_names import safe_name
from polyres.audio.files import read_audio
from polyres.datasets.tracks import Track, index_tracks
from polyres.synth.modules.tracks import render

RATE_HZ = 44_100
SECONDS = 24
PEAK = 0.7
SEED = 7


def rms(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean(wave**2) + 1e-12))


def busiest(tracks: list[Track]) -> tuple[Track, int]:
    """The track and second from which on the most stems play for most of the time."""
    found = []
    for number, track in enumerate(tracks):
        longest = max(len(stem.active) for stem in track.stems.values())
        active = sum(np.pad(stem.active, (0, longest - len(stem.active))) for stem in track.stems.values())
        counts = np.convolve(active, np.ones(SECONDS), "valid") if longest > SECONDS else np.array([active.sum()])
        found.append((counts.max(), -number, int(counts.argmax())))
    _, number, start_s = max(found)
    return tracks[-number], start_s


def sung_parts(vocals: np.ndarray) -> list[int]:
    """Seconds from which on the voice sings for most of the time."""
    seconds = vocals[:, : vocals.shape[1] // RATE_HZ * RATE_HZ].reshape(len(vocals), -1, RATE_HZ)
    level = np.sqrt((seconds**2).mean(axis=(0, 2)))
    sings = level > 0.1 * np.percentile(level, 95)
    return [start for start in range(len(sings) - SECONDS) if sings[start : start + SECONDS].mean() > 0.7]


def main(modules: Path, trained: Path, vocals_path: Path, out: Path) -> None:
    known = {track.artist for track in index_tracks(trained, layout="modules")}
    by_artist: dict[str, list[Track]] = defaultdict(list)
    for track in index_tracks(modules, layout="modules"):
        if track.artist not in known and len(track.stems) > 1:
            by_artist[track.artist].append(track)
    vocals, _ = read_audio(vocals_path)
    starts, rng = sung_parts(vocals), np.random.default_rng(SEED)
    for artist, tracks in sorted(by_artist.items()):
        track, start_s = busiest(tracks)
        stems = {
            name: render(stem.path, stem.parts[0].instruments or (), SECONDS * RATE_HZ, RATE_HZ, float(start_s))
            for name, stem in track.stems.items()
        }
        music = sum(stems.values())
        begin = starts[int(rng.integers(len(starts)))] * RATE_HZ
        voice = vocals[:, begin : begin + SECONDS * RATE_HZ]
        stems["vocals"] = voice * (rms(music) / rms(voice)) * 10 ** (rng.uniform(-6, 0) / 20)
        gain = PEAK / float(np.abs(sum(stems.values())).max())
        folder = out / safe_name(artist, 60)
        folder.mkdir(parents=True, exist_ok=True)
        for name, wave in stems.items():
            soundfile.write(folder / f"{name}.flac", (gain * wave).T, RATE_HZ)
        print(f"{folder.name}: {track.name} from {start_s} s, {' '.join(stems)}")


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:5]))

"""80 s of a song: its stems as a song of its own, and their sum to be separated.

python cut.py DATA/Rubidium
"""

from __future__ import annotations

import sys
from pathlib import Path

import soundfile

START_S, END_S = 25, 105
STEMS = ("drums", "bass", "other", "vocals")


def main(song: Path) -> None:
    """Write songs/NAME/STEM.wav and mixtures/NAME.wav.

    Args:
        song: folder with one file per stem.
    """
    (Path("songs") / song.name).mkdir(parents=True, exist_ok=True)
    Path("mixtures").mkdir(exist_ok=True)
    mixture, rate_hz = 0.0, 44_100
    for stem in STEMS:
        rate_hz = soundfile.info(song / f"{stem}.wav").samplerate
        wave, _ = soundfile.read(song / f"{stem}.wav", start=START_S * rate_hz, stop=END_S * rate_hz)
        soundfile.write(Path("songs") / song.name / f"{stem}.wav", wave, rate_hz, subtype="PCM_24")
        mixture = mixture + wave
    soundfile.write(Path("mixtures") / f"{song.name}.wav", mixture, rate_hz, subtype="FLOAT")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

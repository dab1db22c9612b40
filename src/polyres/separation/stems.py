"""The stems of a song in memory: a dict, which notebooks show with players and spectrograms."""

from __future__ import annotations

import base64
import html
import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from polyres.audio.writer import AudioWriter, WriteSpec, held_channels

_COLUMNS, _ROWS, _N_FFT, _RANGE_DB = 600, 96, 2048, 80.0


class Stems(dict[str, Tensor]):
    """Stem name to `[C, T]` float32, all at `sample_rate_hz`."""

    def __init__(self, waves: dict[str, Tensor], sample_rate_hz: int) -> None:
        """Keep the waves and their rate in Hz."""
        super().__init__(waves)
        self.sample_rate_hz = sample_rate_hz

    def _repr_html_(self) -> str:
        """Show a player and, with the extra `figures`, a spectrogram per stem."""
        rows = []
        for name, wave in self.items():
            sound = base64.b64encode(_mp3(wave, self.sample_rate_hz)).decode()
            picture = _spectrogram(wave)
            image = f'<img alt="spectrogram" src="data:image/png;base64,{picture}">' if picture else ""
            player = f'<audio controls preload="none" src="data:audio/mpeg;base64,{sound}"></audio>'
            rows.append(f"<tr><th>{html.escape(name)}</th><td>{player}</td><td>{image}</td></tr>")
        return f"<table>{''.join(rows)}</table>"


def _mp3(wave: Tensor, sample_rate_hz: int) -> bytes:
    """Encode a wave `[C, T]` for a player; what passes full scale is turned down."""
    channels = held_channels("mp3", len(wave))
    samples = wave[:channels].numpy()
    samples = samples / max(1.0, float(np.abs(samples).max()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stem.mp3"
        with AudioWriter(path, WriteSpec(sample_rate_hz, channels, "mp3")) as writer:
            writer.write(samples.astype(np.float32))
        return path.read_bytes()


def _spectrogram(wave: Tensor) -> str | None:
    """Draw levels over time and logarithmic frequency as PNG in base64; None without matplotlib."""
    try:
        from matplotlib.image import imsave
    except ImportError:
        return None
    mono = wave.mean(dim=0)
    hop = max(_N_FFT // 4, len(mono) // _COLUMNS)
    spectra = torch.stft(mono, _N_FFT, hop, window=torch.hann_window(_N_FFT), return_complex=True, pad_mode="constant")
    rows = torch.logspace(0.5, np.log10(_N_FFT // 2), _ROWS).long()
    levels_db = 20 * torch.log10(spectra.abs()[rows] + 1e-9)
    picture = io.BytesIO()
    top_db = float(levels_db.max())
    imsave(picture, levels_db.flip(0).numpy(), vmin=top_db - _RANGE_DB, vmax=top_db, cmap="magma", format="png")
    return base64.b64encode(picture.getvalue()).decode()

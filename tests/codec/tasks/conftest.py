from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch


@pytest.fixture(scope="module")
def songs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three songs of four stems at the `RATE_HZ` of the module, 3 s each."""
    root, rate_hz = tmp_path_factory.mktemp("songs"), request.module.RATE_HZ
    generator = np.random.default_rng(0)
    t = np.arange(3 * rate_hz) / rate_hz
    for number, folder in enumerate(("train/one", "train/two", "valid/three")):
        (root / folder).mkdir(parents=True)
        for pitch, source in enumerate(("drums", "bass", "other", "vocals")):
            wave = 0.2 * np.sin(2 * np.pi * 110 * 2 ** (pitch + number / 12) * t) * (1 + np.sin(2 * np.pi * 3 * t))
            soundfile.write(root / folder / f"{source}.wav", wave + 0.02 * generator.standard_normal(len(t)), rate_hz)
    return root


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

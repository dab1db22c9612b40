"""The score of a whole track, for arrays and tensors."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import polyres.metrics
from polyres.core.errors import InputError
from polyres.metrics.bss.evaluate import bss_eval, framewise_sdr
from polyres.metrics.separation import nsdr as nsdr_of_tensors
from polyres.metrics.track_score import nsdr


def waves(seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((3, 2, 5000))


def test_arrays_and_tensors_score_alike() -> None:
    references, estimates = waves(), waves() + 0.1 * waves(1)
    scores = nsdr(references, estimates)
    assert isinstance(scores, np.ndarray)
    assert scores.shape == (3,)
    assert scores == pytest.approx(20, abs=0.2)
    wanted = 10 * np.log10(
        (np.sum(references**2, axis=(1, 2)) + 1e-7) / (np.sum((references - estimates) ** 2, axis=(1, 2)) + 1e-7)
    )
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-12)
    tensors = nsdr(torch.from_numpy(references), torch.from_numpy(estimates))
    assert isinstance(tensors, torch.Tensor)
    torch.testing.assert_close(tensors, torch.from_numpy(wanted))
    torch.testing.assert_close(tensors, nsdr_of_tensors(torch.from_numpy(references), torch.from_numpy(estimates)))


def test_single_precision_is_scored_in_double() -> None:
    references = waves().astype(np.float32)
    assert nsdr(references, references * np.float32(1 + 2**-12)).dtype == np.float64
    assert nsdr(references, references) == pytest.approx(10 * np.log10((np.sum(waves() ** 2, (1, 2)) + 1e-7) / 1e-7))


def test_silence() -> None:
    references = waves()
    assert nsdr(references, np.zeros_like(references)) == pytest.approx(0, abs=1e-5)
    assert nsdr(np.zeros_like(references), references) == pytest.approx(
        10 * np.log10(1e-7 / (np.sum(references**2, axis=(1, 2)) + 1e-7))
    )


@pytest.mark.parametrize("function", [nsdr, framewise_sdr, bss_eval])
def test_unusable_input_is_refused(function) -> None:
    good = waves()
    with pytest.raises(InputError, match=r"references need the shape \[sources, channels, samples\]"):
        function(good[0], good[0])
    with pytest.raises(InputError, match="references have 5000 samples but estimates 4999"):
        function(good, good[..., :-1])
    broken = good.copy()
    broken[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="contain NaN or infinite samples"):
        function(good, broken)


def test_the_package_names_functions_and_stays_light() -> None:
    assert polyres.metrics.__all__ == ["bss_eval", "framewise_sdr", "nsdr"]
    assert polyres.metrics.bss_eval is bss_eval
    assert polyres.metrics.nsdr is nsdr
    code = (
        "import sys, polyres.metrics.bss.evaluate, polyres.metrics as m\n"
        "print('torch' in sys.modules, 'numpy' in sys.modules)\n"
        "import polyres.metrics.catalogue\n"
        "print(callable(m.bss_eval), callable(m.framewise_sdr), callable(m.nsdr))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert shown.split() == ["False", "False", "True", "True", "True"]

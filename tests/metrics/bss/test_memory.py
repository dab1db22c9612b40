"""The memory that BSSEval takes does not grow with the track."""

from __future__ import annotations

import subprocess
import sys
from unittest import mock

import pytest
import torch

from polyres.metrics.bss import filters as bss_filters
from polyres.metrics.bss.evaluate import bss_eval_blocks


def test_pieces_of_a_long_track_are_short() -> None:
    held = []

    def blocks():
        generator = torch.Generator().manual_seed(0)
        for _ in range(40):
            wave = torch.randn(1, 1, 5000, generator=generator)
            yield wave, wave + 0.1 * torch.randn(wave.shape, generator=generator)

    real = bss_filters._block_spectra

    def watched(piece, n_fft):
        held.append(piece.shape[-1])
        return real(piece, n_fft)

    with mock.patch.object(bss_filters, "_block_spectra", watched):
        bss_eval_blocks(blocks, 4096, 4096)
    assert len(held) > 5
    assert max(held) < 20_000


PEAK = """
import sys, torch
from polyres.metrics.bss.evaluate import bss_eval_blocks

def blocks():
    generator = torch.Generator().manual_seed(0)
    for _ in range(int(sys.argv[1])):
        wave = torch.randn(2, 2, 44100, generator=generator)
        yield wave, wave + 0.1 * torch.randn(wave.shape, generator=generator)

print(bss_eval_blocks(blocks)["SAR"].shape[1])
lines = open("/proc/self/status").read().splitlines()
print(next(line for line in lines if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_the_peak_of_memory_is_that_of_a_short_track() -> None:
    peaks_mib = {}
    for seconds in (10, 80):
        command = [sys.executable, "-c", PEAK, str(seconds)]
        shown = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
        assert int(shown[0]) == seconds
        peaks_mib[seconds] = int(shown[1]) / 1024
    # 70 s of two stereo sources and estimates in double precision are 188 MiB.
    assert peaks_mib[80] - peaks_mib[10] < 20, peaks_mib

from __future__ import annotations

import pytest

from polyres.dsp.mel import AUDIOLDM2_16K, AUDIOLDM_48K, MelConfig, mel_centres_hz, mel_filterbank

HTK = MelConfig(scale="htk", min_hz=100, mel_bins=40)


@pytest.mark.parametrize("config", [AUDIOLDM2_16K, AUDIOLDM_48K, HTK], ids=["16k", "48k", "htk"])
def test_the_middles_of_the_filters_are_where_the_filters_peak(config: MelConfig) -> None:
    bin_hz = config.sample_rate_hz / config.n_fft
    heard = mel_filterbank(config).amax(dim=1) > 0
    peaks_hz = mel_filterbank(config).argmax(dim=1) * bin_hz
    assert (peaks_hz - mel_centres_hz(config))[heard].abs().max() < bin_hz

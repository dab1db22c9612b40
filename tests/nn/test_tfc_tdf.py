"""The U-Net with dense layers along frequency."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from polyres.dsp.stft import istft, stft
from polyres.nn.tfc_tdf import TfcTdf, TfcTdfBranch
from polyres.separation.model import SeparatorConfig


def branch(head: str = "mask") -> TfcTdfBranch:
    values = {"n_fft": [512], "hop_ratio": 2, "head": head, "wave_branch": False, "channels": 4, "depth": 3}
    body = {"kind": "tfc_tdf", "blocks": 2, "subbands": 2}
    config = SeparatorConfig.from_dict({**values, "transformer": {"kind": "none"}, "body": body})
    torch.manual_seed(0)
    built = config.plan().branch(0)
    assert isinstance(built, TfcTdfBranch)
    return built.requires_grad_(False)


def test_block_is_the_papers_order() -> None:
    torch.manual_seed(0)
    block, x = TfcTdf(3, 4, 16, 8), torch.randn(2, 3, 5, 16)

    def active(norm: torch.nn.Module, y: torch.Tensor) -> torch.Tensor:
        centred = y - y.mean(dim=(1, 2, 3), keepdim=True)
        return F.gelu(centred / (centred.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-5).sqrt())

    y = block.conv_in(active(block.norm_in, x))
    y = y + block.widen(F.gelu(block.narrow(active(block.norm_wide, y))))
    y = block.conv_out(active(block.norm_out, y)) + block.shortcut(x)
    torch.testing.assert_close(block(x), y)
    assert block.narrow.weight.shape == (2, 16)


@pytest.mark.parametrize("length", [1, 300, 4001])
def test_grid_and_untrained_masks(length: int) -> None:
    model, mix = branch(), 0.1 * torch.randn(1, 2, length)
    for value in model.last.parameters():
        value.zero_()
    h, state = model.encode(mix)
    frames = -(-length // 256)
    assert h.shape == (1, 16, 32, -(-frames // 4))
    wanted = istft(stft(mix, 512, 256), 256, length) / 4
    torch.testing.assert_close(model.decode(h, state, length), wanted[:, None].expand(-1, 4, -1, -1))


def test_last_layer_gives_each_source_channel_and_subband_its_bins() -> None:
    model, mix = branch("mapping"), 0.1 * torch.randn(1, 2, 2048)
    h, state = model.encode(mix)
    for value in model.last.parameters():
        value.zero_()
    # channel order: source, audio channel, real or imaginary part, subband
    model.leave.bias.view(4, 2, 2, 2)[3, 1, 0, 1] = 1.0
    spec = (torch.zeros(1, 4, 2, 256, 8) + state.mean[..., None]).to(torch.complex64) * (1 + 1j)
    spec[:, 3, 1, 128:] += state.std[..., 0, 0, None]
    torch.testing.assert_close(model.decode(h, state, 2048), istft(spec, 256, 2048), atol=1e-5, rtol=1e-4)

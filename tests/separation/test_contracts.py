"""What every variant and every choice of parts must do, on small versions of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from polyres.nn.attention import ATTENTION
from polyres.nn.fusion.base import BOTTLENECK_FUSION, OUTPUT_FUSION
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.variants import VARIANTS

LENGTH = 3001
# rescale: at the default starting scale the bottleneck moves the output by 1e-4 only
SMALL: dict[str, object] = {"rescale": 0.5, "channels": 8, "dconv_compress": 4, "transformer.layers": 2}
SMALL |= {"output.widths": [6, 8], "output.strides": [4, 4], "output.gate_hop_samples": 256}
PARTS = [(attention, "source_weights", "weights") for attention in (*ATTENTION.names(), "none")]
PARTS += [("linear", output, "mean") for output in OUTPUT_FUSION.names()]
PARTS += [("none", "mean", bottleneck) for bottleneck in BOTTLENECK_FUSION.names()]
MIXING = [("gru", "mlp"), ("conv", "softmax"), ("linear", "linear"), ("sparse", "sparse")]


def row(name: str, head: str = "mapping") -> SeparatorConfig:
    return VARIANTS[name].with_values({**SMALL, "head": head})


def parts(attention: str, output: str, bottleneck: str) -> SeparatorConfig:
    values = {"n_fft": [1024, 2048, 512], "transformer.kind": attention, "output.kind": output}
    values["wave_branch"] = output == "source_weights"
    return SeparatorConfig().with_values(
        {**SMALL, **values, "bottleneck.kind": bottleneck, "transformer.sparse.block": 8}
    )


def banded(time: str, band: str) -> SeparatorConfig:
    """Frames of 1024 samples from one that is shorter, one that is as long, and one that is longer."""
    values = {"n_fft": [512, 2048, 8192], "body.time_mixing": time, "body.band_mixing": band, "body.blocks": 2}
    return VARIANTS["band_split"].with_values({**SMALL, **values, "output.kind": "weights"})


CONFIGS = {f"{name}-{head}": row(name, head) for name in VARIANTS for head in ("mapping", "mask")}
CONFIGS |= {"-".join(part): parts(*part) for part in PARTS}
CONFIGS |= {"-".join(mixing): banded(*mixing) for mixing in MIXING}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def mixture(batch: int = 1, length: int = LENGTH) -> Tensor:
    return 0.1 * torch.randn(batch, 2, length, generator=torch.Generator().manual_seed(1))


def stirred(config: SeparatorConfig) -> Separator:
    """A model in which nothing starts at zero, and residual parts are strong enough to be seen."""
    model = Separator(config)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not value.any() or name.startswith("output.") or "gamma" in name:
                value.add_(0.05 * torch.randn(value.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def models() -> Iterator[dict[str, Separator]]:
    """Every model is built once."""
    built: dict[str, Separator] = {}
    yield built
    built.clear()


def model_of(models: dict[str, Separator], config: SeparatorConfig) -> Separator:
    name = config.fingerprint()
    if name not in models:
        models[name] = stirred(config)
    return models[name]


@every_config
def test_shape_gradient_for_every_parameter_and_batch_invariance(
    config: SeparatorConfig, models: dict[str, Separator]
) -> None:
    model, mix = model_of(models, config), mixture(2)
    model.zero_grad(set_to_none=True)
    out, waves = model(mix, return_branches=True)
    assert out.shape == (2, 4, 2, LENGTH)
    assert waves.shape == (2, len(config.n_fft), 4, 2, LENGTH)
    assert bool(out.isfinite().all())
    assert bool(waves.detach().flatten(2).any(dim=2).all())
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    assert not [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert all(bool(value.grad.isfinite().all()) for value in model.parameters() if value.grad is not None)
    with torch.no_grad():
        alone = model(mix[1:])
    scale = float(out.detach().abs().max())
    torch.testing.assert_close(alone, out[1:].detach(), atol=1e-5 * scale, rtol=0)


@every_config
def test_active_removes_exactly_one_branch(
    config: SeparatorConfig, models: dict[str, Separator], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others still speak, the absent one is silent, and the fusion is told so."""
    model, mix = model_of(models, config), mixture(length=2001)
    count = len(config.n_fft)
    rest = [index for index in range(count) if index != count // 2]
    active = torch.zeros(count)
    active[rest] = 1
    added: list[Tensor] = [torch.zeros(1)]
    if model.wave is not None:
        decode = model.wave.decode
        monkeypatch.setattr(model.wave, "decode", lambda *given: added.append(decode(*given)) or added[-1])
    with torch.no_grad():
        full = model(mix)
        torch.testing.assert_close(model(mix, active=range(count)), full)
        fused, waves = model(mix, active=rest, return_branches=True)
        torch.testing.assert_close(fused, model.output(waves, active) + added[-1])
    assert waves.flatten(2).any(dim=2)[0].tolist() == [bool(value) for value in active]
    assert not torch.allclose(fused, full, atol=1e-3 * float(full.abs().max()), rtol=0)


@every_config
def test_forward_writes_nothing_and_state_loads_strictly(config: SeparatorConfig, models: dict[str, Separator]) -> None:
    model, mix = model_of(models, config), mixture(length=2001)
    before = snapshot(model)
    with torch.no_grad():
        first = model(mix)
    assert snapshot(model) == before
    twin = Separator(config, seed=7)
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(twin(mix), first, atol=0, rtol=0)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def snapshot(model: Separator) -> list[tuple[str, list[tuple[str, int]], list[tuple[str, int, int]]]]:
    """Which objects every part of a model holds, and how often its tensors were written to."""
    found = []
    for name, part in model.named_modules():
        own = [(key, id(value)) for key, value in vars(part).items() if key not in ("_parameters", "_buffers")]
        tensors = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        found.append((name, own, [(key, id(value), value._version) for key, value in tensors]))
    return found


@pytest.mark.parametrize("part", PARTS, ids="-".join)
def test_half_precision_stays_close(part: tuple[str, str, str], models: dict[str, Separator]) -> None:
    model, mix = model_of(models, parts(*part)), mixture(length=3001)
    with torch.no_grad():
        full = model(mix)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half, waves = model(mix, return_branches=True)
        fused = model.output(waves, torch.ones(3))
    assert half.dtype == torch.float32
    assert bool(half.isfinite().all())
    assert float((half - full).norm() / full.norm()) < 0.05
    if model.wave is None:
        torch.testing.assert_close(half, fused)

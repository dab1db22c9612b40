"""Training polyres_wave: it learns, its recipe fits, its critic's gradients go where they belong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from polyres.codec.registry import build_codec
from polyres.codec.tasks.wave import CodecTask, CodecTrainConfig, fit_tables
from polyres.codec.wave.codec import WaveCodec, WaveCodecConfig
from polyres.codec.wave.refiner import Critic
from polyres.core.errors import ConfigError, TrainingError
from polyres.study.run.train import run_training

RECIPES = Path(__file__).resolve().parents[3] / "recipes" / "reconstruct"
NAMES = ("polyres_wave", "polyres_wave_44k", "polyres_wave_live", "polyres_wave_adversarial")
RATE_HZ = 16_000

TINY = """\
task: polyres_wave
model:
  synthesis: refined
  frame_samples: 512
  splits: [1, 2, 4]
  scalars_per_step: 400
  floor_scalars: 60
  floor_block: 256
  floor_bands: 16
  refiner: {{n_fft: [128, 256], channels: 4, latent_channels: 2, latent_hop: 512}}
data:
  roots: [{{path: train}}]
  sample_rate_hz: 16000
  audio_channels: 1
  segment_samples: 8192
  items_per_epoch: 8
pool_items: 4
table_items: 2
valid: {{roots: [valid], max_seconds: 1}}
loss: {{terms: {{l1: 1.0, stft: 1.0}}, stft_n_fft: [256, 1024]}}
batch_size: 2
epochs: 6
optimiser: {{lr: 3.0e-3}}
num_workers: 0
device: cpu
data_dir: {data}
"""


def recipe(tmp_path: Path, songs: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.format(data=songs), encoding="utf-8")
    return path


def test_a_run_learns_and_leaves_a_codec(tmp_path: Path, songs: Path) -> None:
    result = run_training(recipe(tmp_path, songs), tmp_path / "run", ["epochs=1", "steps_per_epoch=10"])
    assert result.finished
    codec = build_codec(tmp_path / "run")
    assert isinstance(codec, WaveCodec)
    assert codec.refiner is not None
    task = CodecTask(CodecTrainConfig.from_yaml(tmp_path / "run" / "config.yaml"))
    trained, start = task.build_model(), task.build_model()
    before = task.validate(start.eval())
    trained.codec.load_state_dict(codec.state_dict())
    after = task.validate(trained.eval())
    assert after["score"] > before["score"] + 0.05


def test_a_run_with_a_critic_goes_on(tmp_path: Path, songs: Path) -> None:
    changes = ["critic={n_fft: [128], channels: 4}", "epochs=1"]
    path = recipe(tmp_path, songs)
    first = run_training(path, tmp_path / "run", changes)
    more = run_training(None, tmp_path / "run", [*changes, "epochs=1"], resume=True)
    assert (first.finished, more.step) == (True, first.step)
    state = build_codec(tmp_path / "run").state_dict()
    assert not any(name.startswith("critic") for name in state)


def test_gradients_of_the_critic_go_where_they_belong() -> None:
    critic = Critic((128,), 1, 4)
    decoded = torch.randn(2, 1, 1024, requires_grad=True)
    terms = critic.terms(decoded, torch.randn(2, 1, 1024))
    (terms.adversarial + terms.features).backward(retain_graph=True)
    assert decoded.grad is not None
    assert bool(decoded.grad.any())
    assert all(parameter.grad is None for parameter in critic.parameters())
    decoded.grad = None
    terms.critic.backward()
    assert decoded.grad is None
    assert any(bool(parameter.grad.any()) for parameter in critic.parameters() if parameter.grad is not None)


def test_a_critic_learns_to_tell_waves_apart() -> None:
    critic, generator = Critic((128,), 1, 4), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(critic.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        one = torch.randn(4, 1, 1024, generator=generator)
        terms = critic.terms(0.1 * one, one)
        optimiser.zero_grad()
        terms.critic.backward()
        optimiser.step()
        losses.append(float(terms.critic.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_counted_probabilities_save_numbers() -> None:
    codec = WaveCodec(WaveCodecConfig())
    rng, t = np.random.default_rng(0), np.arange(3 * 8192) / RATE_HZ
    wave = sum(np.sin(2 * np.pi * 220 * k * t) / k for k in range(1, 20)) + 0.01 * rng.standard_normal(len(t))
    words = []
    for tables in (codec.tables, fit_tables([wave[None]], codec.plan)):
        codec.set_tables(tables)
        words.append(float(codec.encode(torch.from_numpy(wave).float()[None, None])["coefficients"][:, 1].mean()))
    assert words[1] < words[0]


def test_nothing_to_count_leaves_even_odds() -> None:
    codec = WaveCodec(WaveCodecConfig())
    tables = fit_tables([np.zeros((1, 100))], codec.plan)
    assert (tables.floor == 1024).all()


@pytest.mark.parametrize("name", NAMES)
def test_recipes_are_whole(name: str) -> None:
    path = RECIPES / f"{name}.yaml"
    config = CodecTrainConfig.from_yaml(path)
    assert f"polyres train recipes/reconstruct/{name}.yaml " in path.read_text(encoding="utf-8")
    assert CodecTrainConfig.from_dict(config.to_dict()) == config
    model = config.model
    share = model.scalars_per_step / (model.layout.step_samples * model.audio_channels)
    assert share <= 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.sample_rate_hz=8000", "data.sample_rate_hz is 8000 but model.sample_rate_hz is 16000"),
        ("model.synthesis=lapped", "model.synthesis must be 'refined' with a model.refiner"),
        ("data.segment_samples=8000", "data.segment_samples must be a multiple of 2048"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(tmp_path: Path, songs: Path, change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CodecTrainConfig.from_yaml(recipe(tmp_path, songs), [change])


def test_runs_that_cannot_start_are_refused(tmp_path: Path, songs: Path) -> None:
    with pytest.raises(TrainingError, match="holds no run to resume"):
        run_training(None, tmp_path / "none", resume=True)
    with pytest.raises(TrainingError, match="train on one; set devices=1"):
        run_training(recipe(tmp_path, songs), tmp_path / "two", ["devices=2"])
    with pytest.raises(TrainingError, match="init is 'polyres_wave'"):
        run_training(recipe(tmp_path, songs), tmp_path / "other", ["init=polyres_wave"])

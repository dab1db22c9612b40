"""Training polyres_mel: both parts learn, go on where they stopped, and leave one codec."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from polyres.codec.load import load_codec
from polyres.codec.mel.codec import MelCodec
from polyres.codec.registry import build_codec
from polyres.codec.tasks.config import MelTrainConfig
from polyres.codec.tasks.enhance import Pool
from polyres.codec.tasks.mel import MelCodecTask, cropped, levelled
from polyres.core.errors import ConfigError, TrainingError
from polyres.dsp.mel import log_mel
from polyres.study.run.train import run_training

RECIPES = Path(__file__).resolve().parents[3] / "recipes" / "reconstruct"
NAMES = ("polyres_mel", "polyres_mel_vocoder")
RATE_HZ = 8000

TINY = """\
task: {task}
model:
  mel: {{sample_rate_hz: 8000, n_fft: 256, win_length: 256, hop_length: 64, mel_bins: 16, max_hz: 4000}}
  network: {{widths: [4, 6, 8], latent_channels: 3, middle_blocks: 0}}
  vocoder: {{width: 24, depth: 2}}
data:
  roots: [{{path: train}}]
  sample_rate_hz: 8000
  audio_channels: 1
  segment_samples: 8192
  items_per_epoch: 8
pool_items: 4
scaling_items: 2
crop_samples: 4096
loss: {{terms: {{stft: 1.0}}, stft_n_fft: [128, 512]}}
valid: {{roots: [valid], max_seconds: 1}}
batch_size: 4
epochs: 4
steps_per_epoch: 10
optimiser: {{lr: 5.0e-3}}
num_workers: 0
device: cpu
data_dir: {data}
"""


def recipe(tmp_path: Path, songs: Path, task: str) -> Path:
    path = tmp_path / f"{task}.yaml"
    path.write_text(TINY.format(task=task, data=songs), encoding="utf-8")
    return path


def task_of(tmp_path: Path, songs: Path, task: str, changes: tuple[str, ...] = ()) -> MelCodecTask:
    return MelCodecTask(MelTrainConfig.from_yaml(recipe(tmp_path, songs, task), changes))


@pytest.mark.slow
def test_both_parts_learn_one_after_the_other_and_leave_one_codec(tmp_path: Path, songs: Path) -> None:
    known = "valid.roots=[train]"
    first = run_training(recipe(tmp_path, songs, "polyres_mel"), tmp_path / "one", [known, "epochs=8"])
    untrained = task_of(tmp_path, songs, "polyres_mel", (known,))
    before = untrained.validate(untrained.build_model().eval())
    assert first.best is not None
    assert first.best["valid"]["log_mel_l1"] < 0.85 * before["log_mel_l1"]

    init = f"init={tmp_path / 'one'}"
    unspoken = task_of(tmp_path, songs, "polyres_mel_vocoder", (init,))
    start = unspoken.validate(unspoken.build_model().eval())
    second = run_training(recipe(tmp_path, songs, "polyres_mel_vocoder"), tmp_path / "two", [init])
    assert second.best is not None
    assert second.best["score"] > start["score"]
    one, two = build_codec(tmp_path / "one"), build_codec(tmp_path / "two")
    assert isinstance(two, MelCodec)
    for name, value in one.autoencoder.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(value, two.autoencoder.state_dict()[name])
    assert load_codec(tmp_path / "two", "cpu").reconstruct(torch.rand(2, 3000) - 0.5, RATE_HZ).shape == (2, 3000)


@pytest.mark.parametrize("task", NAMES)
def test_a_run_goes_on_where_it_stopped(tmp_path: Path, songs: Path, task: str) -> None:
    path, changes = recipe(tmp_path, songs, task), ["steps_per_epoch=2", "valid.roots=[]"]
    if task == "polyres_mel_vocoder":
        changes.append("critic={n_fft: [128], channels: 4}")
    whole = run_training(path, tmp_path / "whole", [*changes, "epochs=2"])
    run_training(path, tmp_path / "parts", [*changes, "epochs=1"])
    parts = run_training(None, tmp_path / "parts", ["epochs=2"], resume=True)
    assert whole.step == parts.step == 4
    one, two = build_codec(tmp_path / "whole"), build_codec(tmp_path / "parts")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_the_scaling_is_that_of_the_pool(tmp_path: Path, songs: Path) -> None:
    task = task_of(tmp_path, songs, "polyres_mel")
    mels = torch.cat([log_mel(task.source[index], task.codec.settings.mel) for index in range(2)], dim=1)
    scaled = task.codec.autoencoder.scaling(mels)
    assert torch.allclose(scaled.mean(dim=(0, 1)), torch.zeros(16), atol=1e-4)


def test_a_part_of_the_batch_is_read_as_the_autoencoder_decodes_it(tmp_path: Path, songs: Path) -> None:
    task = task_of(tmp_path, songs, "polyres_mel_vocoder", ("decoded_share=0.5",))
    mel = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) - 4
    read = task._read(mel)
    assert torch.equal(read[2:], mel[2:, 0])
    autoencoder = task.codec.autoencoder
    with torch.no_grad():
        decoded = autoencoder.decode(autoencoder.encode(mel[:2]).latent_dist.mode()).sample
    assert torch.allclose(read[:2], decoded[:, 0], atol=1e-6)


def test_gradients_go_to_the_part_in_training_alone(tmp_path: Path, songs: Path) -> None:
    task = task_of(tmp_path, songs, "polyres_mel_vocoder", ("critic={n_fft: [128], channels: 4}", "decoded_share=1"))
    model = task.build_model().train()
    batch = torch.stack([task.source[index] for index in range(4)])[..., :4096]
    total, terms = task.losses(model, batch)
    total.backward()
    assert all(value.grad is None for value in task.codec.autoencoder.parameters())
    assert task.gradient_norms(model)["all"] > 0
    assert {"stft", "log_magnitude", "log_mel_l1", "adversarial", "features", "critic"} <= set(terms)


def test_crops_are_parts_of_the_mixtures_at_other_levels() -> None:
    batch = torch.arange(1.0, 101.0).expand(3, 1, 100)
    crops = cropped(batch, torch.Generator().manual_seed(1), length_samples=20, gain_db=6.0)
    assert crops.shape == (3, 1, 20)
    steps = (crops[..., 1:] - crops[..., :-1]).mean(dim=2)[:, 0]
    assert float(steps.abs().max()) <= 1.0001
    assert float(steps.abs().min()) >= 10 ** (-6 / 20) - 1e-4
    assert len({round(float(first / step)) for first, step in zip(crops[:, 0, 0], steps, strict=True)}) > 1
    again = cropped(batch, torch.Generator().manual_seed(1), length_samples=20, gain_db=6.0)
    assert torch.equal(crops, again)


def test_the_pool_reads_every_mixture_once(tmp_path: Path, songs: Path) -> None:
    task = task_of(tmp_path, songs, "polyres_mel")
    pool = Pool(task.data.source, 3, levelled)
    assert len(pool) == 3
    first = pool[2]
    pool.set_epoch(7)
    assert pool[2] is first
    assert float(first.abs().max()) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_recipes_are_whole(name: str) -> None:
    path = RECIPES / f"{name}.yaml"
    config = MelTrainConfig.from_yaml(path)
    assert f"polyres train recipes/reconstruct/{name}.yaml " in path.read_text(encoding="utf-8")
    assert MelTrainConfig.from_dict(config.to_dict()) == config
    assert config.task == name
    assert config.data.segment_samples <= MelCodec(config.model).window_samples


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.sample_rate_hz=16000", "data has 1 channels at 16000 Hz; the codec takes 1 at 8000 Hz"),
        ("crop_samples=4000", "crop_samples is 4000; a multiple of 256 up to data.segment_samples is needed"),
        ("critic={channels: 4}", "critic is for polyres_mel_vocoder"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(tmp_path: Path, songs: Path, change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MelTrainConfig.from_yaml(recipe(tmp_path, songs, "polyres_mel"), [change])


@pytest.mark.parametrize(
    ("init", "message"),
    [("polyres_wave", "which is no mel codec with the front end"), ("/nowhere/x.safetensors", "there is no codec")],
)
def test_what_cannot_be_started_from_is_refused(tmp_path: Path, songs: Path, init: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        run_training(recipe(tmp_path, songs, "polyres_mel_vocoder"), tmp_path / "run", [f"init={init}"])
    assert not (tmp_path / "run").exists()

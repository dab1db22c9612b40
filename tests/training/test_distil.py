from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from polyres.core.errors import ConfigError, TrainingError, UnknownNameError
from polyres.models.separator import Separator
from polyres.models.weights import save_separator
from polyres.training.distil import DistilConfig, Teacher
from polyres.training.run import run_training
from polyres.training.separation import SeparationTask, TrainConfig


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def teacher(recipe, tmp_path) -> Separator:
    """A larger separator, shaken out of its start, saved as teacher.safetensors."""
    model = Separator(TrainConfig.from_yaml(recipe).model.with_values({"channels": 8}), seed=5).eval()
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.add_(0.05 * noise(*parameter.shape, seed=seed))
    save_separator(model, tmp_path / "teacher.safetensors", dtype="fp32")
    return model


def overrides(tmp_path, weight: float, kind: str = "l1") -> list[str]:
    return [f"distil={{teacher: '{tmp_path / 'teacher.safetensors'}', weight: {weight}, kind: {kind}}}"]


def task_with(recipe, tmp_path, weight: float, kind: str = "l1") -> SeparationTask:
    return SeparationTask(TrainConfig.from_yaml(recipe, overrides(tmp_path, weight, kind)))


def test_weight_zero_is_no_distillation(recipe, teacher, tmp_path):
    stems = noise(2, 4, 2, 4000)
    plain = SeparationTask(TrainConfig.from_yaml(recipe))
    model = plain.build_model()
    total, terms = plain.losses(model, stems)
    same, same_terms = task_with(recipe, tmp_path, 0.0).losses(model, stems)
    assert same.equal(total)
    assert set(same_terms) == set(terms) == {"l1"}


@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_the_teacher_has_its_share(recipe, teacher, tmp_path, weight: float):
    stems = noise(2, 4, 2, 4000)
    task = task_with(recipe, tmp_path, weight)
    model = task.build_model()
    total, terms = task.losses(model, stems)
    with torch.no_grad():
        estimate, taught = model(stems.sum(dim=1)), teacher(stems.sum(dim=1))
    true, apart = (estimate - stems).abs().mean().item(), (estimate - taught).abs().mean().item()
    assert terms["l1"].item() == pytest.approx(true, rel=1e-5)
    assert terms["distil"].item() == pytest.approx(apart, rel=1e-5)
    assert total.item() == pytest.approx((1 - weight) * true + weight * apart, rel=1e-5)


@pytest.mark.parametrize("kind", ["l1", "share"])
def test_weight_one_pulls_to_the_teacher(recipe, teacher, tmp_path, kind: str):
    stems = 0.1 * noise(2, 4, 2, 4000)
    mix = stems.sum(dim=1)
    task = task_with(recipe, tmp_path, 1.0, kind)
    model = task.build_model()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    taught = teacher(mix).detach()
    distances = []
    for _ in range(12):
        optimiser.zero_grad()
        total, _ = task.losses(model, stems)
        total.backward()
        optimiser.step()
        distances.append((model(mix) - taught).square().mean().item())
    assert distances[-1] < 0.7 * distances[0]


def test_the_teacher_gets_no_gradients_and_stays_in_evaluation(recipe, teacher, tmp_path):
    config = TrainConfig.from_yaml(recipe)
    frozen = Teacher(DistilConfig(teacher=str(tmp_path / "teacher.safetensors")), config.model, config.loss, "fp32")
    estimate = noise(1, 4, 2, 4000).requires_grad_()
    frozen.distance(noise(1, 2, 4000).requires_grad_(), estimate).backward()
    assert estimate.grad is not None
    assert not frozen.model.training
    assert [p for p in frozen.model.parameters() if p.grad is not None or p.requires_grad] == []
    assert all(tensor.equal(teacher.state_dict()[name]) for name, tensor in frozen.model.state_dict().items())


def test_the_teacher_works_in_the_precision_of_the_training(recipe, teacher, tmp_path):
    config = TrainConfig.from_yaml(recipe)
    about = DistilConfig(teacher=str(tmp_path / "teacher.safetensors"))
    mix, estimate = noise(1, 2, 4000), noise(1, 4, 2, 4000, seed=1)
    full, half = (Teacher(about, config.model, config.loss, p).distance(mix, estimate) for p in ("fp32", "bf16"))
    assert full.dtype == half.dtype == torch.float32
    assert full != half
    torch.testing.assert_close(full, half, rtol=0.02, atol=0)


def test_a_run_learns_from_a_teacher_and_does_not_keep_it(recipe, teacher, tmp_path):
    run_training(recipe, tmp_path / "run", overrides(tmp_path, 0.5))
    run_training(recipe, tmp_path / "plain")
    for name in ("checkpoint.safetensors", "best.safetensors"):
        with safe_open(tmp_path / "run" / name, "pt") as taught, safe_open(tmp_path / "plain" / name, "pt") as plain:
            assert set(taught.keys()) == set(plain.keys())
    taught, plain = (load_file(tmp_path / run / "best.safetensors") for run in ("run", "plain"))
    assert any(not tensor.equal(plain[name]) for name, tensor in taught.items())
    assert '"distil": 0.' in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_no_teacher_there(recipe, tmp_path):
    with pytest.raises(TrainingError, match=r"distil.teacher is '.*teacher.safetensors': there is no weight file"):
        task_with(recipe, tmp_path, 0.5)
    with pytest.raises(TrainingError, match=r"distil.teacher is '.*teacher.safetensors': there is no weight file"):
        run_training(recipe, tmp_path / "run", overrides(tmp_path, 0.5))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": ["drums", "vocals"]}, r"has sources \('drums', 'vocals'\) but the recipe's model \('drums', "),
        ({"sample_rate_hz": 16000}, r"has sample_rate_hz 16000 but the recipe's model 8000; give a teacher with"),
        ({"audio_channels": 1}, r"has audio_channels 1 but the recipe's model 2"),
    ],
)
def test_a_teacher_of_something_else(recipe, tmp_path, changes, message: str):
    model = Separator(TrainConfig.from_yaml(recipe).model.with_values(changes))
    save_separator(model, tmp_path / "teacher.safetensors")
    with pytest.raises(TrainingError, match=message):
        task_with(recipe, tmp_path, 0.5)


def test_unknown_kind(recipe, tmp_path):
    with pytest.raises(UnknownNameError, match=r"unknown loss 'shares'; did you mean 'share'"):
        DistilConfig(teacher="any", kind="shares")
    with pytest.raises(ConfigError, match=r"tiny.yaml: unknown loss 'shares'"):
        task_with(recipe, tmp_path, 0.5, "shares")

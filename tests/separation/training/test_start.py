from __future__ import annotations

import pytest

from polyres.core.errors import TrainingError
from polyres.separation.bag import Bag
from polyres.separation.model import Separator
from polyres.separation.training import start
from polyres.separation.training.start import load_start, start_from
from polyres.separation.training.task import SeparationTask, TrainConfig
from polyres.separation.weights import save_separator
from polyres.study.run.train import run_training


@pytest.fixture
def small(recipe) -> Separator:
    return Separator(TrainConfig.from_yaml(recipe).model, seed=123)


def same(a: Separator, b: Separator) -> bool:
    return all(tensor.equal(b.state_dict()[name]) for name, tensor in a.state_dict().items())


def test_from_a_weight_file(recipe, small, tmp_path):
    path = save_separator(small, tmp_path / "start.safetensors", dtype="fp32")
    assert same(SeparationTask(TrainConfig.from_yaml(recipe, [f"init={path}"])).build_model(), small)


def test_from_the_best_of_a_run(recipe, small, tmp_path):
    run_training(recipe, tmp_path / "run", ["epochs=1"])
    started = SeparationTask(TrainConfig.from_yaml(recipe, [f"init={tmp_path / 'run'}"])).build_model()
    assert same(started, load_start(str(tmp_path / "run" / "best.safetensors"), "init"))
    assert not same(started, small)


def test_from_a_built_in_model(stems_dir):
    shipped = load_start("polyres-small", "init")
    assert not shipped.training
    values = {"model": shipped.config.to_dict(), "data": {"roots": [{"path": str(stems_dir / "train")}]}}
    for part in ("data", "augment"):
        values.setdefault(part, {})["sample_rate_hz"] = shipped.sample_rate_hz
    config = TrainConfig.from_dict({**values, "epochs": 1, "init": "polyres-small"})
    started = SeparationTask(config).build_model()
    assert same(started, shipped)
    assert started.training


def test_a_segment_of_another_length_is_the_same_model(small):
    longer = Separator(small.config.with_values({"segment_samples": 8000}), seed=0)
    assert not same(longer, small)
    fill_with(longer, small)
    assert same(longer, small)


def fill_with(model: Separator, source: Separator) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "load_model", lambda name: source)
        start_from(model, "somewhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"channels": 8},
            r"init does not fit the recipe's model: somewhere: \d+ tensors of another shape, first "
            r"'branches.0.\S+': \[.*\] instead of \[.*\]; .*\(channels 4 there, 8 here\)",
        ),
        (
            {"n_fft": [512]},
            r"somewhere: \d+ tensors too many, first 'branches.1.\S+'; .*\(n_fft \[512, 1024\] there, \[512\] here\)",
        ),
        (
            {"wave_branch": True},
            r"somewhere: \d+ tensors missing, first 'wave.\S+'; .*\(wave_branch False there, True here\)",
        ),
    ],
)
def test_weights_of_another_model_name_the_first_tensor_and_the_settings(small, changes, message):
    other = Separator(small.config.with_values(changes))
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(TrainingError, match=message):
        fill_with(other, small)
    assert all(tensor.equal(before[name]) for name, tensor in other.state_dict().items())


def test_many_differences_are_counted(small):
    changes = {"channels": 8, "head": "mapping", "wave_branch": True, "rescale": 0.2, "context": 0}
    with pytest.raises(TrainingError, match=r"\(wave_branch|channels .* and 2 more\)"):
        fill_with(Separator(small.config.with_values(changes)), small)


def test_weights_that_do_not_fit_show_before_there_is_a_run(recipe, small, tmp_path):
    path = save_separator(small, tmp_path / "start.safetensors")
    with pytest.raises(TrainingError, match=r"init does not fit the recipe's model"):
        run_training(recipe, tmp_path / "run", [f"init={path}", "model.channels=8"])
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_loaded(tmp_path):
    with pytest.raises(
        TrainingError, match=r"init is '.*gone.safetensors': there is no weight file .*; check the path"
    ):
        load_start(str(tmp_path / "gone.safetensors"), "init")
    with pytest.raises(TrainingError, match=r"init is 'polyres-smal': unknown model .*did you mean 'polyres-small'"):
        load_start("polyres-smal", "init")


def test_a_bag_is_no_start(small, monkeypatch):
    bag = Bag([small, small])
    monkeypatch.setattr(start, "load_model", lambda name: bag)
    with pytest.raises(TrainingError, match=r"init is 'both', a bag of 2 models; give the weights of one model"):
        load_start("both", "init")

from __future__ import annotations

import pickle
import shutil

import pytest
import torch

from polyres.core.errors import ConfigError, TrainingError, UnknownNameError
from polyres.metrics.separation import nsdr
from polyres.separation.bag import Bag
from polyres.separation.model import Separator
from polyres.separation.training import task as task_module
from polyres.separation.training.task import SeparationTask, TrainConfig, load_start, start_from
from polyres.separation.variants import variant
from polyres.separation.weights import load_separator_weights, save_separator
from polyres.study.run.train import run_training
from polyres.training.loading import seeded_generator
from polyres.training.task import resolve_roots

DATA = {"roots": [{"path": "train"}]}


@pytest.fixture
def task(recipe):
    return SeparationTask(TrainConfig.from_yaml(recipe))


def equal_shares(mix: torch.Tensor, active: None = None, return_branches: bool = False):
    """A quarter of the mixture for everyone; its two resolutions give half and nothing of that."""
    estimate = mix[:, None].repeat(1, 4, 1, 1) / 4
    return (estimate, torch.stack([0.5 * estimate, 0 * estimate], dim=1)) if return_branches else estimate


def test_variant_is_the_base_of_the_model():
    config = TrainConfig.from_dict({"variant": "w5", "model": {"channels": 8}, "data": DATA, "epochs": 1})
    assert config.model == variant("w5").with_values({"channels": 8})
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert TrainConfig.from_dict({"variant": "w5", "data": DATA, "epochs": 1}).model == variant("w5")


def test_unknown_variant_and_unknown_keys():
    with pytest.raises(UnknownNameError, match=r"unknown variant 'htdemucs_42'; did you mean 'htdemucs_4?2?4?8?'"):
        TrainConfig.from_dict({"variant": "htdemucs_42", "data": DATA, "epochs": 1})
    with pytest.raises(ConfigError, match=r"unknown key 'model.chanels'; did you mean 'model.channels'"):
        TrainConfig.from_dict({"variant": "n", "model": {"chanels": 8}, "data": DATA, "epochs": 1})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sample_rate_hz": 48000}, r"data.sample_rate_hz is 48000 but model.sample_rate_hz is 44100; make them equal"),
        ({"sources": ["drums", "vocals"]}, r"data.sources is .* but model.sources is"),
        ({"audio_channels": 1}, r"data.audio_channels is 1 but model.audio_channels is 2"),
    ],
)
def test_data_must_sound_like_the_model_expects(data, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_dict({"data": {**DATA, **data}, "epochs": 1})


def test_augmentation_must_know_the_rate():
    with pytest.raises(ConfigError, match=r"augment.sample_rate_hz and model.sample_rate_hz differ"):
        TrainConfig.from_dict({"data": DATA, "augment": {"sample_rate_hz": 8000}, "epochs": 1})


def test_roots_are_relative_to_the_data_folder(tmp_path, monkeypatch):
    (tmp_path / "songs").mkdir()
    assert resolve_roots(("songs",), str(tmp_path)) == (str(tmp_path / "songs"),)
    assert resolve_roots((str(tmp_path / "songs"),), "/elsewhere") == (str(tmp_path / "songs"),)
    monkeypatch.chdir(tmp_path)
    assert resolve_roots(("songs",), None) == ("songs",)
    with pytest.raises(TrainingError, match=r"there is no folder .*gone \(root 'gone'\); set .* with --data"):
        resolve_roots(("gone",), str(tmp_path))


def test_loss_compares_the_separated_sum_with_its_stems(task):
    stems = torch.randn(2, 4, 2, 100, generator=torch.Generator().manual_seed(0))
    total, terms = task.losses(equal_shares, stems)
    expected = (stems.sum(dim=1, keepdim=True) / 4 - stems).abs().mean()
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert terms.keys() == {"l1"}


def test_preparation_augments_and_pickles(task):
    prepare = pickle.loads(pickle.dumps(task.build_prepare()))
    stems = torch.randn(3, 4, 2, 4000, generator=torch.Generator().manual_seed(0))
    first, again = (prepare(stems, seeded_generator(0, "prepare", 5)) for _ in range(2))
    other = prepare(stems, seeded_generator(0, "prepare", 6))
    assert first.shape == stems.shape
    assert first.equal(again)
    assert not first.equal(other)
    assert not first.equal(stems)


def test_validation_scores_the_excerpt_and_skips_the_missing_stem(task, stems_dir):
    from polyres.datasets.tracks import load_track

    sources = task.config.model.sources
    scores = task.validate(equal_shares)
    whole = load_track(stems_dir / "valid" / "three", sources, 8000, 2)
    excerpt = whole[..., 4000:20000]  # the central two of three seconds, cut at a full second: 0, 1
    values = nsdr(whole[..., :16000], equal_shares(whole[..., :16000].sum(0)[None])[0])
    present = ("drums", "other", "vocals")
    assert set(scores) == {"score", *present, *(f"{source}@{n_fft}" for source in present for n_fft in (512, 1024))}
    assert scores["drums@1024"] == pytest.approx(0, abs=1e-9)
    assert 0 < scores["drums@512"] != pytest.approx(scores["drums"], abs=0.01)
    assert excerpt.shape[-1] == 16000
    assert scores["drums"] == pytest.approx(values[0].item(), abs=0.05)
    assert scores["score"] == pytest.approx((scores["drums"] + scores["other"] + scores["vocals"]) / 3)


@pytest.mark.parametrize("change", ["valid.branches=false", "model.n_fft=[512]"])
def test_validation_asks_for_no_resolutions_where_they_are_not_wanted_or_the_same(recipe, change: str):
    task = SeparationTask(TrainConfig.from_yaml(recipe, [change]))
    assert set(task.validate(lambda mix: equal_shares(mix))) == {"score", "drums", "other", "vocals"}


def test_scores_of_resolutions_are_those_of_the_model_itself(task, stems_dir):
    from polyres.datasets.tracks import load_track

    model = task.build_model().eval()
    with torch.no_grad():
        for parameter in model.branches[1].parameters():
            parameter.mul_(1.2).add_(0.01)
        scores = task.validate(model)
        stems = load_track(stems_dir / "valid" / "three", model.sources, 8000, 2)[..., :16000]
        pieces = [model(piece.sum(0)[None], return_branches=True)[1][0] for piece in stems.split(4000, dim=-1)]
    alone = nsdr(stems.expand(2, -1, -1, -1), torch.cat(pieces, dim=-1))
    for r, n_fft in enumerate((512, 1024)):
        assert scores[f"vocals@{n_fft}"] == pytest.approx(alone[r, 3].item(), abs=1e-3)
    assert scores["vocals@512"] != pytest.approx(scores["vocals@1024"], abs=0.01)


def test_validation_of_a_split_of_a_data_set(recipe, stems_dir, tmp_path):
    for name in ("Actions - One Minute Smile", "Another - Song"):  # the first is one of the 14 for validation
        shutil.copytree(stems_dir / "train" / "one", tmp_path / "train" / name)
        shutil.copy(tmp_path / "train" / name / "drums.wav", tmp_path / "train" / name / "mixture.wav")
    seen = []

    def forward(mix, active=None, return_branches=False):
        seen.append(len(mix))
        return equal_shares(mix, active, return_branches)

    for split, segments in (("valid", 6), ("train", 6), ("all", 12)):
        changes = [f"data_dir={tmp_path}", "data.roots=[{path: train}]", "valid.roots=['.']", "valid.max_seconds=null"]
        changes += ["valid.layout=musdb18hq", f"valid.split={split}"]
        task = SeparationTask(TrainConfig.from_yaml(recipe, changes))
        for _ in range(2):  # whole tracks are read every time
            seen.clear()
            assert set(task.validate(forward)) >= {"score", "bass"}
            assert sum(seen) == segments


def test_no_validation_roots_give_no_scores(recipe):
    config = TrainConfig.from_yaml(recipe, ["valid.roots=[]"])
    assert SeparationTask(config).validate(equal_shares) == {}


def test_seed_of_the_run_rules_weights_and_data(recipe):
    tasks = [SeparationTask(TrainConfig.from_yaml(recipe, [f"seed={seed}"])) for seed in (1, 1, 2)]
    weights = [task.build_model().state_dict()["branches.0.encoder.0.conv.weight"] for task in tasks]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])
    items = [task.build_source()[0] for task in tasks]
    assert items[0].equal(items[1])
    assert not items[0].equal(items[2])


def test_export_is_exact_and_loads_as_a_separator(task, tmp_path):
    model = task.build_model()
    task.export(model, tmp_path / "best.safetensors", {"epoch": 3})
    loaded = load_separator_weights(tmp_path / "best.safetensors")
    assert loaded.config == model.config
    assert all(tensor.equal(loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_description_holds_the_fusion_weights(task):
    fusion = task.describe(task.build_model())["fusion"]
    assert fusion["output"] == [[0.5, 0.5]] * 4


def test_gradient_norms_by_resolution_add_up_to_the_whole(task):
    model = task.build_model()
    assert task.gradient_norms(model) == {}
    stems = torch.randn(1, 4, 2, 4000, generator=torch.Generator().manual_seed(0))
    task.losses(model, stems)[0].backward()
    norms = task.gradient_norms(model)
    assert set(norms) == {"branch@512", "branch@1024", "bottleneck", "output"}
    of_1024 = [p.grad.flatten() for p in model.branches[1].parameters() if p.grad is not None]
    assert norms["branch@1024"] == pytest.approx(torch.cat(of_1024).norm().item(), rel=1e-5)
    whole = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm().item()
    assert sum(norm**2 for norm in norms.values()) ** 0.5 == pytest.approx(whole, rel=1e-5)


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
        patch.setattr(task_module, "load_model", lambda name: source)
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
    monkeypatch.setattr(task_module, "load_model", lambda name: bag)
    with pytest.raises(TrainingError, match=r"init is 'both', a bag of 2 models; give the weights of one model"):
        load_start("both", "init")

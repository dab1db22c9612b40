from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from polyres.core.errors import OutputError, WeightsError
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.variants import VARIANTS
from polyres.separation.weights import load_separator_weights, read_card, read_info, save_separator
from polyres.weights.files import METADATA_KEY, count_parameters, read_metadata

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = SeparatorConfig.from_dict(
    {
        "sources": ("drums", "rest"),
        "n_fft": (512, 1024),
        "channels": 4,
        "segment_samples": 4096,
        "transformer": {"kind": "linear", "layers": 2, "heads": 2},
        "output": {"kind": "source_weights"},
    }
)
CARD: dict[str, Any] = {"data": "made songs", "score_db": 1.5, "names": ["Ω", "b"]}


@pytest.fixture
def model() -> Separator:
    return Separator(CONFIG, seed=3)


@pytest.fixture
def saved(model: Separator, tmp_path: Path) -> Path:
    return save_separator(model, tmp_path / "a.safetensors", CARD, "fp32")


def rewrite(path: Path, tensors: dict[str, Tensor] | None = None, about: dict[str, Any] | None = None) -> None:
    """Write the file again with some tensors or metadata changed."""
    metadata = json.loads(read_metadata(path)[METADATA_KEY])
    save_file({**load_file(path), **(tensors or {})}, path, {METADATA_KEY: json.dumps({**metadata, **(about or {})})})


def rejects(path: Path, text: str) -> None:
    with pytest.raises(WeightsError, match=text) as caught:
        load_separator_weights(path)
    assert "\n" not in str(caught.value)


def test_round_trip_is_exact_in_fp32(model: Separator, saved: Path) -> None:
    loaded = load_separator_weights(saved)
    assert loaded.config == model.config
    assert not loaded.training
    assert read_card(saved) == CARD
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    mix = torch.randn(1, 2, 3000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(mix), model.eval()(mix))


def test_fp16_halves_the_file_and_rounds_once(model: Separator, saved: Path, tmp_path: Path) -> None:
    half = save_separator(model, tmp_path / "half.safetensors", CARD)
    assert half.stat().st_size < 0.7 * saved.stat().st_size
    loaded = load_separator_weights(half)
    assert all(value.dtype == torch.float32 for value in loaded.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float()), name
    again = save_separator(loaded, tmp_path / "again.safetensors", CARD)
    assert again.read_bytes() == half.read_bytes()


@pytest.mark.parametrize("name", ["n", "dnf", "2nn", "mrx"])
def test_configs_of_the_table_survive(name: str, tmp_path: Path) -> None:
    config = VARIANTS[name].with_values({"channels": 4, "depth": 2, "transformer.heads": 2, "segment_samples": 4096})
    path = save_separator(Separator(config), tmp_path / "x.safetensors")
    assert read_info(path).config == config
    assert load_separator_weights(path).config == config
    assert read_card(path) == {}


def test_a_run_folder_stands_for_its_best_file(model: Separator, tmp_path: Path) -> None:
    written = save_separator(model, tmp_path, {"step": 7})
    assert written == tmp_path / "best.safetensors"
    assert read_card(tmp_path) == {"step": 7}
    assert load_separator_weights(tmp_path).config == CONFIG


def test_folders_are_made_and_nothing_is_left_beside_the_file(model: Separator, tmp_path: Path) -> None:
    path = save_separator(model, tmp_path / "new" / "deep" / "x.safetensors")
    assert list(path.parent.iterdir()) == [path]


def test_parameters_are_counted_from_the_header(model: Separator, saved: Path) -> None:
    assert count_parameters(saved) == sum(value.numel() for value in model.parameters())


def test_reading_the_card_reads_no_tensor(saved: Path) -> None:
    tensors = {name: torch.full_like(value, math.nan) for name, value in load_file(saved).items()}
    rewrite(saved, tensors)
    assert read_card(saved) == CARD


# -- saving that fails ------------------------------------------------------------------------------------------------


def test_a_failed_save_keeps_the_old_file(model: Separator, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("polyres.weights.files.save_file", full)
    with pytest.raises(OutputError, match=r"cannot write .*a\.safetensors.*No space left"):
        save_separator(model, saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_file_in_the_way_of_the_folder(model: Separator, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(OutputError, match=r"cannot write .*taken"):
        save_separator(model, tmp_path / "taken" / "x.safetensors")


def test_weights_too_large_for_fp16(model: Separator, tmp_path: Path) -> None:
    with torch.no_grad():
        next(model.parameters()).fill_(1e6)
    with pytest.raises(WeightsError, match=r"as fp16: 1 tensor not finite, first 'branches\.0"):
        save_separator(model, tmp_path / "x.safetensors")
    save_separator(model, tmp_path / "x.safetensors", dtype="fp32")


def test_cards_must_be_json(model: Separator, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"card of .*x\.safetensors cannot be written as JSON"):
        save_separator(model, tmp_path / "x.safetensors", {"a": {1, 2}})
    with pytest.raises(WeightsError, match="cannot be written as JSON"):
        save_separator(model, tmp_path / "x.safetensors", {"a": math.nan})


def test_other_dtypes_are_refused(model: Separator, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="dtype 'int8' is not allowed; allowed: fp16, fp32"):
        save_separator(model, tmp_path / "x.safetensors", dtype="int8")  # type: ignore[arg-type]


# -- files that cannot be read ----------------------------------------------------------------------------------------


def test_missing_files(tmp_path: Path) -> None:
    rejects(tmp_path / "none.safetensors", r"there is no weight file .*none\.safetensors; check the path")
    rejects(tmp_path, r"there is no weight file .*best\.safetensors")
    rejects(tmp_path / ("x" * 300), "there is no weight file .*xxx")


@pytest.mark.parametrize("share", [0.001, 0.01, 0.5, 0.999])
def test_cut_files(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: max(9, int(share * len(content)))])
    rejects(saved, r"a\.safetensors is cut or damaged \(.*\); get the file again")


@pytest.mark.parametrize("content", [b"short", b"this is only text, not weights", b"PK\x03\x04" + bytes(100)])
def test_other_files(saved: Path, content: bytes) -> None:
    saved.write_bytes(content)
    rejects(saved, r"a\.safetensors is not a safetensors file; give a file written by polyres")
    (folder := saved.parent / "folder.safetensors").mkdir()
    with pytest.raises(WeightsError, match=r"folder\.safetensors is a folder, not a weight file; name the file"):
        read_metadata(folder)


def test_empty_files(saved: Path) -> None:
    saved.write_bytes(b"")
    rejects(saved, r"a\.safetensors is empty; get the file again")


def test_files_without_our_metadata(saved: Path) -> None:
    save_file(load_file(saved), saved)
    rejects(saved, r"has no 'polyres' metadata; give a file written by polyres")


def test_damaged_metadata(saved: Path) -> None:
    save_file(load_file(saved), saved, {METADATA_KEY: "{"})
    rejects(saved, "its metadata is damaged")
    save_file(load_file(saved), saved, {METADATA_KEY: "[1]"})
    rejects(saved, "its metadata is damaged")


@pytest.mark.parametrize(
    ("about", "text"),
    [
        ({"format": 2}, "has format 2; this version reads format 1; update polyres"),
        ({"kind": "codec"}, "holds a model of kind 'codec'; a 'separator' is needed"),
        ({"card": None}, "its metadata lacks the config or the card"),
        ({"config": {"chanels": 4}}, "its config is not usable: .*unknown key 'chanels'; did you mean 'channels'"),
        ({"config": {**CONFIG.to_dict(), "output": {"kind": "wights"}}}, "its config .*did you mean 'weights'"),
    ],
    ids=["format", "kind", "card", "key", "value"],
)
def test_metadata_of_something_else(saved: Path, about: dict[str, Any], text: str) -> None:
    rewrite(saved, about=about)
    rejects(saved, text)


def test_missing_extra_and_misshapen_tensors(model: Separator, saved: Path) -> None:
    tensors = model.state_dict()
    metadata = read_metadata(saved)
    names = list(tensors)
    save_file({name: tensors[name] for name in names[2:]}, saved, metadata)
    rejects(saved, f"2 tensors missing, first {names[0]!r}; the weights are of another model")
    save_file({**tensors, "zebra": torch.zeros(1)}, saved, metadata)
    rejects(saved, "1 tensor too many, first 'zebra'; the weights are of another model")
    save_file({**tensors, names[1]: torch.zeros(3, 3)}, saved, metadata)
    rejects(saved, rf"1 tensor of another shape, first {names[1]!r}: \[3, 3\] instead of \[4\]")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_tensors_that_are_not_finite(model: Separator, saved: Path, value: float) -> None:
    name = list(model.state_dict())[5]
    tensor = model.state_dict()[name].clone()
    tensor.view(-1)[-1] = value
    rewrite(saved, {name: tensor})
    rejects(saved, f"1 tensor not finite, first {name!r}; get or train the weights again")


def test_tensors_of_whole_numbers(model: Separator, saved: Path) -> None:
    name = next(iter(model.state_dict()))
    rewrite(saved, {name: torch.zeros_like(model.state_dict()[name], dtype=torch.int64)})
    rejects(saved, f"tensor {name!r} is int64; floating point is needed")

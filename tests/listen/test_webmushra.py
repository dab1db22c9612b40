"""webMUSHRA configurations are taken over with their sounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.listen.anchors import LOW_HZ, low_pass
from polyres.listen.study_files import load_study
from polyres.listen.webmushra import import_webmushra

RATE_HZ = 16_000
NAMES = ("ref", "one", "two")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "configs" / "sounds").mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        wave = np.random.default_rng(seed).normal(0.0, 0.1, (RATE_HZ, 1))
        soundfile.write(tmp_path / "configs" / "sounds" / f"{name}.wav", wave, RATE_HZ, subtype="FLOAT")
    return tmp_path


def sound(name: str) -> str:
    return f"configs/sounds/{name}.wav"


def page(kind: str = "mushra", name: str = "trial_1", **more: Any) -> dict[str, Any]:
    stimuli = {"C1": sound("one"), "C2": sound("two")}
    return {"type": kind, "id": name, "name": "Which?", "reference": sound("ref"), "stimuli": stimuli, **more}


def config(folder: Path, *pages: Any, **more: Any) -> Path:
    path = folder / "configs" / "my test.yaml"
    path.write_text(yaml.safe_dump({"testname": "My test", "testId": "my test", "pages": list(pages), **more}))
    return path


WELCOME = {"type": "generic", "id": "hello", "content": "<p>Hello &amp; <b>welcome</b>!</p><br/>Take your time."}
CONSENT = {"type": "consent", "id": "agree", "content": "I agree."}
FINISH = {
    "type": "finish",
    "name": "Thanks",
    "confirmationCode": "ABC1",
    "questionnaire": [
        {"type": "text", "label": "eMail", "name": "email", "optional": False},
        {"type": "number", "label": "Age", "name": "age", "optional": True},
        {"type": "likert", "label": "Gender", "name": "gender", "response": [{"value": "f", "label": "Female"}]},
        {"type": "file", "label": "Photo", "name": "photo"},
    ],
}


def test_a_mushra_test_is_taken_over(folder: Path) -> None:
    lines: list[str] = []
    trial = page(createAnchor35=True, createAnchor70=False)
    pages = [WELCOME, CONSENT, {"type": "volume"}, page(name="training"), ["random", trial, [page(name="trial_2")]]]
    study = import_webmushra(
        config(folder, *pages, {"type": "spatial", "id": "where"}, FINISH), folder / "study", report=lines.append
    )
    assert load_study(folder / "study") == study
    assert (study.name, study.title, study.kind) == ("my-test", "My test", "mushra")
    assert study.instructions == "Hello & welcome!\n\nTake your time."
    assert (study.consent, study.completion_code) == ("I agree.", "ABC1")
    assert [p.item for p in study.pages] == ["trial_1", "trial_2"]
    assert [p.item for p in study.training] == ["training"]
    roles = {condition.label: condition.role for condition in study.conditions}
    assert roles == {"C1": "system", "C2": "system", "reference": "reference", "anchor 3.5 kHz": "low_anchor"}
    assert [(q.name, q.type, q.required) for q in study.questionnaire] == [
        ("email", "text", True),
        ("age", "number", False),
        ("gender", "choice", False),
    ]
    assert lines == [
        "warning: page 'where' of type 'spatial' is left out",
        "warning: question 'photo' of type 'file' is left out",
    ]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({}, {}, (True, False)),
        ({"enableLooping": False, "switchBack": True}, {"enableLooping": False, "switchBack": True}, (False, True)),
        ({"enableLooping": False, "switchBack": True}, {}, (True, False)),
    ],
)
def test_how_sounds_are_played_is_taken_over_where_pages_agree(
    folder: Path, first: dict[str, Any], second: dict[str, Any], expected: tuple[bool, bool]
) -> None:
    study = import_webmushra(config(folder, page(**first), page(name="trial_2", **second)), folder / "study")
    assert (study.playback.loop, study.playback.restart) == expected


def test_sounds_are_the_same_and_anchors_aligned(folder: Path) -> None:
    study = import_webmushra(config(folder, page(createAnchor35=True)), folder / "study")
    ids = {condition.label: condition.id for condition in study.conditions}
    read = {label: soundfile.read(folder / "study" / study.pages[0].audio[name])[0] for label, name in ids.items()}
    reference = soundfile.read(folder / sound("ref"))[0]
    np.testing.assert_allclose(read["C1"], soundfile.read(folder / sound("one"))[0], atol=1e-6)
    np.testing.assert_allclose(read["reference"], reference, atol=1e-6)
    anchor = low_pass(reference[None].astype(np.float32), LOW_HZ, RATE_HZ)[0]
    np.testing.assert_allclose(read["anchor 3.5 kHz"], anchor, atol=1e-6)
    assert study.pages[0].reference not in study.pages[0].audio.values()


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        ("paired_comparison", {}, "abx"),
        ("preference_test", {"reference": None}, "ab"),
        ("mushra", {"reference": None}, "bs2132"),
    ],
)
def test_other_types(folder: Path, kind: str, more: dict[str, Any], expected: str) -> None:
    study = import_webmushra(config(folder, page(kind, **more)), folder / "study")
    assert study.kind == expected
    assert study.pages[0].reference is None
    assert {condition.label for condition in study.conditions} == {"C1", "C2"}


def test_a_test_of_training_alone_is_a_test(folder: Path) -> None:
    study = import_webmushra(config(folder, page(name="training")), folder / "study")
    assert len(study.pages) == 1
    assert not study.training


def test_files_are_looked_for_where_the_caller_says(folder: Path) -> None:
    path = config(folder, page(stimuli={"C1": "one.wav", "C2": "two.wav"}, reference="ref.wav"))
    with pytest.raises(InputError, match=r"one.wav of page 'trial_1' is missing; say with --root"):
        import_webmushra(path, folder / "study")
    assert import_webmushra(path, folder / "study", folder / "configs" / "sounds").pages


def test_what_cannot_be_taken_over_is_refused(folder: Path) -> None:
    out = folder / "study"
    with pytest.raises(ConfigError, match="has no page to take over; types that can be: mushra, paired_comparison"):
        import_webmushra(config(folder, WELCOME), out)
    with pytest.raises(ConfigError, match="mixes mushra and abx; make one file of each"):
        import_webmushra(config(folder, page(), page("paired_comparison", "t2")), out)
    with pytest.raises(ConfigError, match="page 'trial_1' has no stimuli"):
        import_webmushra(config(folder, page(stimuli={})), out)
    plain = folder / "plain.yaml"
    plain.write_text("name: x\n")
    with pytest.raises(ConfigError, match="is no webMUSHRA configuration: it has no list 'pages'"):
        import_webmushra(plain, out)
    assert not out.exists()


def test_sounds_that_do_not_fit_are_refused(folder: Path) -> None:
    path = config(folder, page())
    soundfile.write(folder / sound("two"), np.zeros(RATE_HZ // 2), RATE_HZ)
    with pytest.raises(InputError, match="the sounds of page 'trial_1' differ in length or channels"):
        import_webmushra(path, folder / "a")
    soundfile.write(folder / sound("two"), np.zeros(RATE_HZ), 8000)
    with pytest.raises(InputError, match=r"two.wav has 8000 Hz, others have 16000 Hz"):
        import_webmushra(path, folder / "b")


def test_studies_are_not_written_over(folder: Path) -> None:
    path = config(folder, page())
    import_webmushra(path, folder / "study")
    with pytest.raises(OutputError, match="holds a study already"):
        import_webmushra(path, folder / "study")
    (folder / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make"):
        import_webmushra(path, folder / "file")

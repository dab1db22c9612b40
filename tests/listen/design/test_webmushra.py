"""webMUSHRA configurations are taken over with their sounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from polyres.cli.main import main
from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.listen.design.anchors import LOW_HZ, low_pass
from polyres.listen.design.conditions import plan_for
from polyres.listen.design.files import load_study
from polyres.listen.design.webmushra import import_webmushra
from tests.listen.served import Client, serving

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
    labels = {condition.label for condition in study.conditions}
    assert labels - {"reference"} == {"C1", "C2"}
    assert ("reference" in labels) == (kind == "paired_comparison")  # listeners tell each sound from the reference


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
    with pytest.raises(ConfigError, match="has no page to take over; types that can be: mushra, bs1116, paired"):
        import_webmushra(config(folder, WELCOME), out)
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
    with pytest.raises(InputError, match="the sounds of page 'trial_1' differ in length, 'C2' by 8000 samples"):
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


STARS = [{"value": "no", "label": "Not at all"}, {"value": "bit", "label": "A bit"}, {"value": "much", "label": "Much"}]


def test_a_study_of_all_kinds_has_parts(folder: Path) -> None:
    lines: list[str] = []
    likert = {"reference": None, "response": STARS}
    pages = [
        page("mushra", "m", content="Rate <b>all</b>."),
        ["random", [page("bs1116", "b"), page("paired_comparison", "p", unforced="I don't know")]],
        page("likert_multi_stimulus", "lm", mustRate=True, **likert),
        page("likert_single_stimulus", "ls", mustPlayback="ended", **likert),
        page("likert_single_stimulus", "l2", reference=None, response=[STARS, STARS[:2]]),
        {"type": "finish", "content": "Goodbye!"},
    ]
    study = import_webmushra(config(folder, *pages), folder / "study", report=lines.append)
    assert load_study(folder / "study") == study
    singles = study.singles()
    assert [single.kind for single in singles] == ["mushra", "bs1116", "abx", "likert", "acr", "acr"]
    assert [part.name for part in study.parts] == ["mushra", "bs1116", "abx", "likert", "acr", "acr-2"]
    assert [len(single.pages) for single in singles] == [1, 2, 2, 1, 1, 1]
    assert [single.design.order for single in singles] == ["given", "balanced", "balanced", "given", "given", "given"]
    assert singles[0].pages[0].text == "Rate all."
    assert study.closing == "Goodbye!"
    labels = {condition.id: condition.label for condition in study.conditions}
    for single in singles[1:3]:
        found = [{labels[name] for name in one.audio} for one in single.pages]
        assert found == [{"C1", "reference"}, {"C2", "reference"}]
    assert singles[1].scale_of("quality") == (1, 5, False)
    assert singles[3].scale_of("quality") == (1, 3, True)
    assert singles[5].scale_of("scale2") == (1, 2, True)
    gates = [(single.gates.must_move, single.gates.must_play) for single in singles[3:]]
    assert gates == [(True, False), (False, True), (False, False)]
    assert lines == [
        "warning: page 'p': abx has no answer \"I don't know\"; listeners guess",
        "note: 6 kinds of pages come one after the other: mushra, bs1116, abx, likert, acr, acr-2",
    ]
    plan = plan_for(study, 0)
    # The sounds of a BS.1116 trial are the reference and one condition; all of a likert page come together.
    assert [len(trial.stimuli) for trial in plan] == [3, 2, 2, 2, 2, 2, 1, 1, 1, 1]
    assert [trial.index for trial in plan] == list(range(10))


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("likert_multi_stimulus", {}, "page 'trial_1' has 0 answers; list two or more in 'response'"),
        ("likert_single_stimulus", {"response": STARS[:1]}, "page 'trial_1' has 1 answers"),
        ("bs1116", {"reference": None}, "page 'trial_1' of type bs1116 has no reference"),
        ("mushra", {"stimuli": {"reference": "configs/sounds/one.wav"}}, "a stimulus cannot be called 'reference'"),
        ("likert_single_stimulus", {"response": "yes"}, "my test.yaml: .*response"),
    ],
)
def test_pages_that_lack_something_are_refused(folder: Path, kind: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        import_webmushra(config(folder, page(kind, **more)), folder / "study")
    assert not (folder / "study").exists()


def test_sounds_that_are_a_little_shorter_are_padded_on_request(folder: Path) -> None:
    path = config(folder, page(createAnchor35=True))
    wave = soundfile.read(folder / sound("two"))[0][:-3]
    soundfile.write(folder / sound("two"), wave, RATE_HZ, subtype="FLOAT")
    for few in (0, 2):
        with pytest.raises(InputError, match="'C2' by 3 samples; cut them to the same, or add silence with --pad 3"):
            import_webmushra(path, folder / "study", pad_samples=few)
    lines: list[str] = []
    study = import_webmushra(path, folder / "study", report=lines.append, pad_samples=3)
    assert lines == ["padded: page 'trial_1', 'C2': 3 samples of silence at the end"]
    ids = {condition.label: condition.id for condition in study.conditions}
    padded = soundfile.read(folder / "study" / study.pages[0].audio[ids["C2"]])[0]
    np.testing.assert_allclose(padded, [*wave, 0, 0, 0], atol=1e-6)


def test_a_mixed_study_is_taken_served_and_analysed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [page("bs1116", "b"), page("likert_multi_stimulus", "l", reference=None, response=STARS, mustRate=True)]
    path = config(folder, *pages, page("paired_comparison", "p"))
    out = tmp_path / "study"
    assert main(["listen", "new", str(path), "--out", str(out)]) == 0
    assert "bs1116, likert, abx, 5 pages of 3 conditions" in capsys.readouterr().out
    with serving(out) as http:
        listener = Client(http).join()
        visit = listener.visit()
        assert [part["kind"] for part in visit["study"]["parts"]] == ["bs1116", "likert", "abx"]
        assert visit["study"]["parts"][0]["attributes"][0]["scale"] == [1, 5]
        statuses = [listener.rate(trial=0, slot=0, value=value).status_code for value in (0.9, 5.1, 4.3)]
        assert statuses == [422, 422, 200]
        assert listener.call("POST", "/api/finish").status_code == 409
        listener.rate_all(visit, 2)
        assert listener.call("POST", "/api/finish").status_code == 200
    assert main(["listen", "export", str(out), "--out", str(tmp_path / "ratings.csv")]) == 0
    options = ["--no-figures", "--json", "--resamples", "100", "--ratings", str(tmp_path / "ratings.csv")]
    capsys.readouterr()
    assert main(["listen", "analyse", str(out), *options]) == 0
    found = json.loads(capsys.readouterr().out)["parts"]
    assert [(one["kind"], one["ratings"]) for one in found] == [("bs1116", 4), ("likert", 2), ("abx", 2)]
    assert {path.name for path in (out / "report").iterdir()} == {"bs1116", "likert", "abx"}
    assert main(["listen", "simulate", str(out), "--listeners", "3"]) == 0
    assert "24 SIMULATED ratings" in capsys.readouterr().out
    assert main(["listen", "score", str(out), "--metrics", "snr"]) == 0

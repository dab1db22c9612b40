"""The player's sound, sample by sample, as a headless Chromium renders it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from tests.browser.pages import visitor
from tests.listen.served import listening, write_study

RATE_HZ = 44_100
FADE = 221  # 5 ms, to the nearest sample
LENGTH = 22_050


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = write_study(tmp_path_factory.mktemp("engine") / "study", seconds=0.05, pages=1)
    with listening(folder) as server, visitor(browser) as opened:
        opened.goto(server.url)
        yield opened


def sounds(count: int, length: int = LENGTH) -> np.ndarray:
    """Noise in the middle of a band, so that a lost sample or a gap cannot hide."""
    return np.random.default_rng(7).uniform(-0.5, 0.5, (count, length)).astype(np.float32)


def play(page: Page, waves: np.ndarray, script: str, seconds: float, loop: bool = True) -> np.ndarray:
    """Render what a script does with a mixer `m` of sounds "0", "1", …"""
    result = page.evaluate(
        """async ([waves, script, samples, rate, loop]) => {
            const { Mixer } = await import("./static/engine.js");
            const context = new OfflineAudioContext(1, samples, rate);
            const buffers = new Map(waves.map((wave, n) => {
                const buffer = context.createBuffer(1, wave.length, rate);
                buffer.copyToChannel(Float32Array.from(wave), 0);
                return [String(n), buffer];
            }));
            const m = new Mixer(context, buffers, loop);
            for (const [method, ...given] of script) m[method](...given);
            return Array.from((await context.startRendering()).getChannelData(0));
        }""",
        [waves.tolist(), script, round(seconds * RATE_HZ), RATE_HZ, loop],
    )
    return np.array(result)


def up() -> np.ndarray:
    return 0.5 - 0.5 * np.cos(np.pi * np.arange(FADE + 1) / FADE)


def step(length: int, at: int) -> np.ndarray:
    """0 before a sample, 1 after the ramp that begins with it."""
    gain = np.zeros(length)
    gain[at : at + FADE + 1] = up()[: max(0, length - at)]
    gain[at + FADE + 1 :] = 1
    return gain


def test_a_switch_equals_the_mix_computed_by_hand(page: Page) -> None:
    """Both ramps begin on the same sample, add up to one, and nothing is late, early or missing."""
    waves = sounds(3)
    seconds = 0.4
    length = round(seconds * RATE_HZ)
    switches = [("1", 0.1), ("2", 0.2003), ("0", 0.3)]
    script: Any = [["start", "0", 0.01, 0], *[["switchTo", name, time] for name, time in switches]]
    rendered = play(page, waves, script, seconds)
    begun = int(np.ceil(0.01 * RATE_HZ))
    time = np.arange(length)
    played = waves[:, (time - begun) % LENGTH].astype(float)
    gains = np.zeros((3, length))
    gains[0] = 1
    active = 0
    for name, at_s in switches:
        ramp = step(length, int(np.ceil(at_s * RATE_HZ - 1e-3)))
        gains[active] -= ramp
        gains[int(name)] += ramp
        active = int(name)
    expected = (gains * played).sum(axis=0) * step(length, begun)
    assert np.allclose(gains.sum(axis=0), 1)
    assert np.abs(rendered - expected).max() < 2e-6
    print(f"\nthree switches differ from the mix computed by hand by {np.abs(rendered - expected).max():.1e} at most")
    # Red where it should be: one sample off is far outside of that.
    assert np.abs(np.roll(rendered, 1) - expected).max() > 0.1


def test_switching_between_equal_sounds_cannot_be_heard(page: Page) -> None:
    waves = np.repeat(sounds(1), 2, axis=0)
    script: Any = [["start", "0", 0, 0], ["switchTo", "1", 0.1], ["switchTo", "0", 0.1001], ["switchTo", "1", 0.2]]
    rendered = play(page, waves, script, 0.3)
    still = play(page, waves, [["start", "0", 0, 0]], 0.3)  # type: ignore[arg-type]
    assert np.abs(rendered - still).max() < 1e-6
    print(f"\nswitching between equal sounds changes them by {np.abs(rendered - still).max():.1e} at most")
    assert np.abs(still[FADE + 1 :]).min() < np.abs(still[FADE + 1 :]).max()


def test_the_loop_goes_on_without_a_gap_and_in_step(page: Page) -> None:
    waves = sounds(2, length=4410)
    rendered = play(page, waves, [["start", "0", 0, 1000], ["switchTo", "1", 0.25]], 0.5)  # type: ignore[arg-type]
    time = np.arange(round(0.5 * RATE_HZ))
    ramp = step(len(time), round(0.25 * RATE_HZ))
    looped = waves[:, (time + 1000) % 4410].astype(float)
    expected = (looped[0] * (1 - ramp) + looped[1] * ramp) * step(len(time), 0)
    assert np.abs(rendered - expected).max() < 2e-6


def test_a_sound_that_does_not_go_round_is_played_once_to_its_end(page: Page) -> None:
    waves = sounds(2, length=4410)
    rendered = play(page, waves, [["start", "0", 0, 1000], ["switchTo", "1", 0.03]], 0.2, loop=False)  # type: ignore[arg-type]
    left = 4410 - 1000
    ramp = step(left, round(0.03 * RATE_HZ))
    expected = (waves[0, 1000:] * (1 - ramp) + waves[1, 1000:] * ramp) * step(left, 0)
    assert np.abs(rendered[:left] - expected).max() < 2e-6
    assert not rendered[left:].any()


def test_stopping_fades_out(page: Page) -> None:
    rendered = play(page, sounds(1), [["start", "0", 0, 0], ["stop", 0.2]], 0.3)  # type: ignore[arg-type]
    end = round(0.2 * RATE_HZ)
    expected = sounds(1)[0, : end + FADE].astype(float) * step(end + FADE, 0)
    expected[end:] *= (1 - up())[:FADE]
    assert np.abs(rendered[: end + FADE] - expected).max() < 2e-6
    assert not rendered[end + FADE :].any()


def test_regions_are_cut_with_faded_ends(page: Page) -> None:
    wave = sounds(1)[0]
    result = page.evaluate(
        """async ([wave, rate]) => {
            const { cut } = await import("./static/engine.js");
            const context = new OfflineAudioContext(1, 128, rate);
            const buffer = context.createBuffer(1, wave.length, rate);
            buffer.copyToChannel(Float32Array.from(wave), 0);
            return Array.from(cut(context, buffer, 1000, 9000).getChannelData(0));
        }""",
        [wave.tolist(), RATE_HZ],
    )
    expected = wave[1000:9000].astype(float)
    expected[:FADE] *= up()[:FADE]
    expected[-FADE:] *= up()[:FADE][::-1]
    assert np.abs(np.array(result) - expected).max() < 1e-6


def test_tones_of_the_headphone_check_are_what_they_say(page: Page) -> None:
    left, right = page.evaluate(
        """async ([rate]) => {
            const { toneTriplet } = await import("./static/checks.js");
            const buffer = toneTriplet(new OfflineAudioContext(2, 128, rate), ["anti", "plain", "quiet"]);
            return [0, 1].map((channel) => Array.from(buffer.getChannelData(channel)));
        }""",
        [8000],
    )
    parts = np.array([left, right]).reshape(2, 3, 12_000)
    assert np.abs(parts[0, 0] + parts[1, 0]).max() == 0  # cancels on loudspeakers
    assert (parts[0, 1:] == parts[1, 1:]).all()
    level = np.sqrt((parts[0] ** 2).mean(axis=1))
    assert level[0] == pytest.approx(level[1])
    assert 20 * np.log10(level[2] / level[1]) == pytest.approx(-6.02, abs=0.01)


def test_every_text_is_there_in_both_languages(page: Page) -> None:
    words, gaps = page.evaluate(
        """async () => {
            const { LANGUAGES } = await import("./static/i18n.js");
            const all = Object.values(LANGUAGES);
            const gaps = ([key, text]) => key + [...text.matchAll(/\\{\\w+\\}/g)].sort();
            return [all.map((texts) => Object.keys(texts)), all.map((texts) => Object.entries(texts).map(gaps))];
        }"""
    )
    assert sorted(words[0]) == sorted(words[1])
    assert sorted(gaps[0]) == sorted(gaps[1])


def test_every_text_that_is_asked_for_exists() -> None:
    folder = Path(__file__).parents[2] / "src/polyres/listen/page"
    known = set(re.findall(r"^  (\w+): \"", (folder / "i18n.js").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for path in [*folder.glob("*.js"), *folder.glob("*.html")]:
        text = path.read_text(encoding="utf-8")
        asked = set(re.findall(r"\btr\(\s*\"(\w+)\"", text)) | set(re.findall(r"data-(?:text|label)=\"(\w+)\"", text))
        assert asked <= known, path.name

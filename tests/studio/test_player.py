"""The studio's player, sample by sample, as a headless Chromium renders it: one clock for all results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from tests.browser.pages import visitor
from tests.studio.studios import QuickEngine, served

RATE_HZ = 44_100
LENGTH = 22_050
BEGIN = 882  # the player starts 20 ms ahead
FADE = 0.005


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    with served(QuickEngine()) as url, visitor(browser) as opened:
        opened.goto(url)
        yield opened


def sounds(count: int, length: int = LENGTH) -> np.ndarray:
    return np.random.default_rng(7).uniform(-0.5, 0.5, (count, length)).astype(np.float32)


def play(page: Page, waves: np.ndarray, steps: Sequence[tuple[float, str, list[Any]]], seconds: float) -> np.ndarray:
    """Render a player of results "0", "1", … with one lane each, and what is done with it at which time."""
    result = page.evaluate(
        """async ([waves, steps, samples, rate]) => {
            const { Player } = await import("./static/player.js");
            const context = new OfflineAudioContext(1, samples, rate);
            Object.defineProperty(context, "state", { value: "running" });
            const player = new Player(context);
            waves.forEach((wave, n) => {
                const buffer = context.createBuffer(1, wave.length, rate);
                buffer.copyToChannel(Float32Array.from(wave), 0);
                player.add(String(n), new Map([["lane", buffer]]));
                player.setMix(String(n), new Map([["lane", { gain: 1, pan: 0 }]]));
            });
            player.choose("0");
            for (const [time, method, given] of steps) {
                if (time === 0) player[method](...given);
                else context.suspend(time).then(() => { player[method](...given); context.resume(); });
            }
            return Array.from((await context.startRendering()).getChannelData(0));
        }""",
        [waves.tolist(), steps, round(seconds * RATE_HZ), RATE_HZ],
    )
    return np.array(result)


def quantum(time_s: float) -> int:
    """The sample at which the browser stops for a time: whole blocks of 128."""
    return -(-round(time_s * RATE_HZ) // 128) * 128


def started(length: int, begin: int = BEGIN) -> np.ndarray:
    return np.clip((np.arange(length) - begin) / (FADE * RATE_HZ), 0, 1)


def at(waves: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Samples of a looped sound; nothing before its start."""
    return np.where(samples >= 0, waves[..., samples % waves.shape[-1]], 0.0)


def test_a_switch_goes_on_at_the_same_sample_of_the_other_result(page: Page) -> None:
    waves = sounds(2)
    rendered = play(page, waves, [(0, "play", []), (0.25, "choose", ["1"])], 0.4)
    time = np.arange(round(0.4 * RATE_HZ))
    left = np.exp(-np.maximum(time - quantum(0.25), 0) / (FADE / 3 * RATE_HZ))
    first, second = at(waves, time - BEGIN)
    expected = started(len(time)) * (left * first + (1 - left) * second)
    assert np.abs(rendered - expected).max() < 1e-4
    # Red where it should be: one sample off is far outside of that.
    assert np.abs(np.roll(rendered, 1) - expected).max() > 0.1


@pytest.mark.slow
def test_a_switch_between_equal_results_cannot_be_heard(page: Page) -> None:
    waves = np.repeat(sounds(1), 2, axis=0)
    switches: Any = [(0.1, "choose", ["1"]), (0.103, "choose", ["0"]), (0.2, "choose", ["1"])]
    rendered = play(page, waves, [(0, "play", []), *switches], 0.3)
    still = play(page, waves, [(0, "play", [])], 0.3)
    assert np.abs(rendered - still).max() < 1e-4
    assert np.abs(still[2000:]).max() > 0.4


def test_a_loop_comes_round_to_the_sample_in_every_result(page: Page) -> None:
    waves = sounds(2)
    steps: Any = [(0, "loop", [0.1, 0.2]), (0, "play", []), (0.25, "choose", ["1"])]
    rendered = play(page, waves, steps, 0.4)
    time = np.arange(round(0.4 * RATE_HZ))
    place = 4410 + (time - BEGIN) % 4410
    left = np.exp(-np.maximum(time - quantum(0.25), 0) / (FADE / 3 * RATE_HZ))
    expected = started(len(time)) * (left * waves[0, place] + (1 - left) * waves[1, place])
    assert np.abs(rendered - expected)[BEGIN:].max() < 1e-4


def test_a_place_that_is_sought_is_heard_from_its_sample(page: Page) -> None:
    waves = sounds(1)
    rendered = play(page, waves, [(0, "play", []), (0.1, "seek", [0.3])], 0.2)
    begin = quantum(0.1) + BEGIN
    time = np.arange(round(0.2 * RATE_HZ))
    expected = started(len(time), begin) * at(waves[0], time - begin + 13_230)
    assert np.abs(rendered - expected)[begin:].max() < 1e-4


def test_a_pause_fades_out_and_goes_on_where_it_was(page: Page) -> None:
    waves = sounds(1)
    rendered = play(page, waves, [(0, "play", []), (0.1, "pause", []), (0.2, "play", [])], 0.3)
    pause, again = quantum(0.1), quantum(0.2) + BEGIN
    assert np.abs(rendered[pause + round(2 * FADE * RATE_HZ) + 1 : again]).max() == 0
    expected = waves[0, pause - BEGIN + np.arange(1000)] * started(1000, 0)
    assert np.abs(rendered[again : again + 1000] - expected).max() < 1e-3

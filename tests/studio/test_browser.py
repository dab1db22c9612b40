"""The page in a headless Chromium: a song comes in, its stems are drawn and heard, alone and together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from polyres.listen.web import bind
from polyres.studio.export import ExportOptions, export_page
from polyres.studio.options import StudioOptions
from polyres.studio.server import create_app
from tests.browser.pages import CHROMIUM, DESKTOP, NO_BROWSER, PHONE, chromium, visitor
from tests.studio.studios import QuickEngine, separated, song

# What reaches the loudspeakers, in dB at the pitches of the two stems.
LISTEN = """
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (to, ...rest) {
  if (to instanceof AudioDestinationNode) {
    window.ear = new AnalyserNode(this.context, { fftSize: 8192, smoothingTimeConstant: 0 });
    connect.call(this, window.ear);
  }
  return connect.call(this, to, ...rest);
};
window.heard = () => {
  const levels = new Float32Array(window.ear.frequencyBinCount);
  window.ear.getFloatFrequencyData(levels);
  const at = (hz) => levels[Math.round((hz * 8192) / window.ear.context.sampleRate)];
  return [at(110) > -50, at(1760) > -50].join();
};
"""
# Whether a canvas shows more than one colour.
DRAWN = """
(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const seen = new Set();
  for (let n = 0; n < data.length; n += 4) seen.add((data[n] << 16) | (data[n + 1] << 8) | data[n + 2]);
  return seen.size > 20;
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip(NO_BROWSER)
    with chromium() as opened:
        yield opened


@contextmanager
def served(engine: QuickEngine) -> Iterator[str]:
    listening = bind(StudioOptions(port=0))
    server = uvicorn.Server(uvicorn.Config(create_app(engine), log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


def hears(page: Page, low: bool, high: bool) -> None:
    wanted = f"{low},{high}".lower()
    # The page's own policy forbids the evaluation of texts, so that the waiting is done here.
    for _ in range(300):
        if (heard := page.evaluate("window.heard()")) == wanted:
            return
        page.wait_for_timeout(50)
    assert heard == wanted


def accessible(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_song_comes_in_and_its_stems_are_drawn_and_heard(browser: Browser, tmp_path: Path) -> None:
    engine = QuickEngine()
    engine.go_on.clear()
    path = song(tmp_path / "a song.wav", seconds=2)
    with served(engine) as url, visitor(browser, DESKTOP) as page:
        page.add_init_script(LISTEN)
        page.goto(url)
        page.locator("#drop").wait_for()
        accessible(page)
        page.set_input_files("#files", path)
        expect(page.locator(".job progress")).to_have_attribute("value", "0.45")
        engine.go_on.set()
        expect(page.locator(".row")).to_have_count(3)
        for canvas in page.locator("canvas").all():
            expect(canvas).to_be_visible()
        page.wait_for_timeout(200)
        assert all(canvas.evaluate(DRAWN.strip()) for canvas in page.locator("canvas").all())
        accessible(page)
        page.get_by_role("button", name="Play").click()
        hears(page, True, True)
        page.get_by_role("button", name="Solo low").click()
        hears(page, True, False)
        page.get_by_role("button", name="Solo low").click()
        page.get_by_role("button", name="Mute low").click()
        hears(page, False, True)
        page.get_by_role("button", name="Mute low").click()
        page.get_by_role("slider", name="Level of high").fill("-40")
        hears(page, True, False)
        assert "strips=low%3A0%3A0" in str(page.get_by_role("link", name="Mix (wav)").get_attribute("href"))
        with page.expect_download() as download:
            page.get_by_role("link", name="All stems (zip)").click()
        assert download.value.suggested_filename == "a song - sides.zip"


def test_two_results_stand_side_by_side_and_switch_at_once(browser: Browser, tmp_path: Path) -> None:
    path = song(tmp_path / "a.wav", seconds=2)
    with served(QuickEngine()) as url, visitor(browser, PHONE) as page:
        page.add_init_script(LISTEN)
        page.goto(url)
        page.locator("#drop").wait_for()
        page.set_input_files("#files", path)
        expect(page.locator(".row")).to_have_count(3)
        page.get_by_label("Model for a.wav").select_option("separate:halves")
        page.get_by_role("button", name="Add result").click()
        expect(page.locator(".version")).to_have_count(2)
        page.get_by_role("button", name="Play").click()
        page.get_by_role("button", name="Solo low").click()
        hears(page, True, False)
        page.keyboard.press("Tab")
        page.locator(".version").nth(1).click()
        hears(page, True, True)  # half of everything
        page.locator(".version").nth(0).click()
        hears(page, True, False)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        accessible(page)
        page.get_by_role("button", name="Remove a.wav").click()
        expect(page.locator(".song")).to_have_count(0)


def test_what_is_no_song_is_told_in_one_line(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "letter.wav"
    path.write_text("dear all")
    with served(QuickEngine()) as url, visitor(browser) as page:
        page.goto(url)
        page.locator("#drop").wait_for()
        page.set_input_files("#files", path)
        expect(page.get_by_role("alert")).to_contain_text("letter.wav")


def test_an_exported_page_plays_without_a_server(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert export_page(separated(tmp_path / "separated"), out, ExportOptions("My <stems>", length_s=2)) == 1
    with visitor(browser) as page:
        page.add_init_script(LISTEN)
        page.goto(out.as_uri())
        expect(page.locator(".row")).to_have_count(3)
        expect(page.locator(".version")).to_have_count(2)
        expect(page.get_by_role("heading", level=1)).to_have_text("My <stems>")
        page.get_by_role("button", name="Play").click()
        hears(page, True, True)
        page.get_by_role("button", name="Solo high").click()
        hears(page, False, True)
        accessible(page)

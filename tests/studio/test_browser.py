"""The page in a headless Chromium: a song comes in, its stems are drawn and heard, alone and together."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import soundfile
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from polyres.batch.manifest import MANIFEST_NAME
from polyres.studio.export import ExportOptions, export_page
from tests.browser.pages import DESKTOP, PHONE, visitor
from tests.studio.studios import QuickEngine, reconstructed, separated, served, song

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
window.levels = () => {
  const levels = new Float32Array(window.ear.frequencyBinCount);
  window.ear.getFloatFrequencyData(levels);
  return [110, 1760].map((hz) => levels[Math.round((hz * 8192) / window.ear.context.sampleRate)]);
};
window.heard = () => window.levels().map((level) => level > -50).join();
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_songs_by_the_dozen_a_folder_and_a_cancel_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    engine = QuickEngine()
    engine.go_on.clear()
    songs = [song(tmp_path / "in" / f"{name}.wav", seconds=1) for name in ("one", "two")]
    (tmp_path / "in" / "cover.txt").write_text("no song")
    with served(engine) as url, visitor(browser) as page:
        page.goto(url)
        page.locator("#drop").wait_for()
        page.set_input_files("#files", songs)
        expect(page.locator(".song")).to_have_count(2)
        expect(page.locator(".job")).to_have_count(2)
        expect(page.locator(".job .left").first).to_have_text("1 before it")
        cancel = page.get_by_role("button", name="Cancel: sides").first
        cancel.focus()
        page.wait_for_timeout(1200)  # the line is told anew, and the focus stays
        expect(cancel).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator(".job")).to_have_count(1)
        page.get_by_role("button", name="Remove two.wav").click()
        engine.go_on.set()
        expect(page.locator(".row")).to_have_count(3)
        page.get_by_label("Model for one.wav").select_option("separate:broken")
        page.get_by_role("button", name="Add result").click()
        expect(page.locator(".job.failed")).to_contain_text("one.wav: is not music")
        page.get_by_role("button", name="Dismiss: broken").click()
        expect(page.locator(".job")).to_have_count(0)
        page.set_input_files("#folder", tmp_path / "in")
        expect(page.locator(".song")).to_have_count(3)
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "cover.txt").write_text("no song")
        page.set_input_files("#folder", tmp_path / "empty")
        expect(page.get_by_role("alert")).to_have_text("No songs in there.")


@pytest.mark.slow
def test_an_original_that_was_compared_is_not_added_to_the_stems(browser: Browser, tmp_path: Path) -> None:
    with served(QuickEngine()) as url, visitor(browser) as page:
        page.goto(url)
        page.locator("#drop").wait_for()
        page.get_by_label("Model for new songs").select_option("reconstruct:echo")
        page.set_input_files("#files", song(tmp_path / "a.wav", seconds=1))
        expect(page.locator(".row")).to_have_count(3)
        page.get_by_label("Model for a.wav").select_option("separate:sides")
        page.get_by_role("button", name="Add result").click()
        expect(page.locator(".version")).to_have_count(2)
        page.locator(".version").nth(1).click()
        expect(page.get_by_role("button", name="Mute original")).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_role("link", name="Mix (wav)")).to_have_attribute(
            "href", re.compile("strips=low%3A0%3A0%2Chigh")
        )
        page.get_by_role("button", name="Add result").click()  # is there already
        expect(page.locator(".version").nth(1)).to_have_attribute("aria-pressed", "true")


# Words that are the same in every language: names, units and formats.
SAME = (
    r"polyres|studio|English|MiB|dB|wav|zip|SDR|JavaScript|sides|halves|echo|broken|crash|low|high|one|two|tune|[A-F]"
)
SPOKEN = """
() => {
  const texts = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    if (!walk.currentNode.parentElement.closest("script, style, noscript")) texts.push(walk.currentNode.data);
  }
  for (const element of document.body.querySelectorAll("*")) {
    for (const name of ["aria-label", "title", "label", "placeholder", "aria-valuetext"]) {
      if (element.hasAttribute(name)) texts.push(element.getAttribute(name));
    }
  }
  return texts;
}
"""


def says_no_english(page: Page) -> None:
    texts = page.evaluate(SPOKEN.strip())
    assert sum("\u4e00" <= character <= "\u9fff" for text in texts for character in text) > 50
    for text in texts:
        rest = re.sub(rf"(?<![A-Za-z])(?:{SAME})(?![A-Za-z])|Language ·|a song", "", text)
        assert not re.search(r"[A-Za-z]{2,}", rest), text


@pytest.mark.slow
def test_the_studio_speaks_chinese_all_through(browser: Browser, tmp_path: Path) -> None:
    engine = QuickEngine()
    engine.go_on.clear()
    with served(engine) as url, visitor(browser, DESKTOP, locale="zh-CN") as page:
        page.goto(url)
        page.get_by_text("把歌曲拖到这里").wait_for()
        says_no_english(page)
        page.set_input_files("#files", song(tmp_path / "a song.wav", seconds=1))
        page.get_by_role("button", name="取消").wait_for()
        says_no_english(page)
        engine.go_on.set()
        expect(page.locator(".row")).to_have_count(3)
        page.get_by_role("button", name="独奏 low").click()
        page.get_by_role("button", name="播放").click()
        page.get_by_role("slider", name="low 的声像").fill("-0.5")
        expect(page.locator(".row").first).to_contain_text("左 50")
        page.get_by_text(": a warning").evaluate("(note) => note.remove()")  # said by the engine
        says_no_english(page)
        assert page.evaluate("document.documentElement.lang") == "zh-CN"
        accessible(page)
        page.get_by_label("Language").select_option("en")
        expect(page.get_by_role("button", name="Pause")).to_be_visible()  # it plays on
        expect(page.get_by_role("button", name="Solo low")).to_have_attribute("aria-pressed", "true")
        expect(page.locator(".row").first).to_contain_text("L 50")
        page.reload()
        page.get_by_text("Drop songs here").wait_for()


@pytest.mark.slow
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


def test_an_exported_page_is_played_by_keyboard_alone(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    export_page(separated(tmp_path / "separated"), out, ExportOptions(length_s=2))
    with visitor(browser) as page:
        page.add_init_script(LISTEN)
        page.goto(out.as_uri())
        expect(page.locator(".version")).to_have_count(2)
        page.keyboard.press("Space")
        hears(page, True, True)
        page.keyboard.press("2")
        expect(page.locator(".version").nth(1)).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("Space")
        expect(page.get_by_role("button", name="Play")).to_be_visible()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        expect(page.locator(".time")).to_have_text("0:01 / 0:02")
        page.keyboard.press("Home")
        page.get_by_role("slider", name="Position").fill("0.5")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("[")
        expect(page.get_by_role("button", name="End loop")).to_be_visible()
        assert page.locator(".region").first.evaluate("(region) => region.style.left") == "25%"
        reached: list[str] = []
        page.locator("#language").focus()
        for _ in range(40):
            page.keyboard.press("Tab")
            label = page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.innerText")
            if label in reached:
                break
            reached.append(label)
        wanted = ["To the start", "Play", "End loop", "Position", "Solo low", "Mute low", "Level of low", "Pan of high"]
        assert [label for label in reached if label in wanted] == wanted
        page.get_by_role("button", name="Solo high").focus()
        page.keyboard.press("Space")
        expect(page.get_by_role("button", name="Solo high")).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_role("button", name="Play")).to_be_visible()  # the key was the button's


@pytest.mark.slow
def test_every_version_of_a_reconstruction_is_heard_from_a_page(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    export_page(reconstructed(tmp_path / "out"), out, ExportOptions(length_s=2))
    with visitor(browser, PHONE) as page:
        page.add_init_script(LISTEN)
        page.goto(out.as_uri())
        expect(page.locator(".row")).to_have_count(4)
        page.get_by_role("button", name="Play").click()
        hears(page, True, True)  # the original at first
        # The codec has no low tone, the enhanced version half of it, and half is what is lost.
        for name, low, high in (("codec", False, True), ("difference", True, False), ("enhanced", True, True)):
            page.get_by_role("button", name=f"Hear {name}").click()
            hears(page, low, high)
            expect(page.locator('.solo[aria-pressed="true"]')).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        accessible(page)


@pytest.mark.slow
def test_the_sdr_of_every_stem_is_told_in_both_languages_and_the_dark(browser: Browser, tmp_path: Path) -> None:
    folder = separated(tmp_path / "out", ["one", "two"])
    wave, rate_hz = soundfile.read(tmp_path / "mixture.wav")
    (tmp_path / "truth" / "tune").mkdir(parents=True)
    soundfile.write(tmp_path / "truth" / "tune" / "low.wav", wave * [1.1, 0], rate_hz, subtype="FLOAT")
    out = tmp_path / "page.html"
    export_page(folder, out, ExportOptions("polyres", tmp_path / "truth", length_s=2))
    for locale, truth in (("en-GB", "reference"), ("zh-CN", "真实声部")):
        with visitor(browser, DESKTOP, locale) as page:
            page.emulate_media(color_scheme="dark")
            page.goto(out.as_uri())
            expect(page.locator(".version").nth(0)).to_contain_text(truth)
            expect(page.locator(".version")).to_have_count(3)
            page.keyboard.press("2")
            row = page.locator(".row").first
            expect(row.locator(".tag")).to_have_text(["A", "BSDR 20.8 dB", "CSDR 20.8 dB"])  # 20 log10(1.1 / 0.1)
            expect(page.locator(".row").nth(1).locator(".tag")).to_have_text(["B", "C"])
            accessible(page)
            if locale == "zh-CN":
                says_no_english(page)


@pytest.mark.slow
def test_results_that_were_turned_down_are_as_loud_as_the_others(browser: Browser, tmp_path: Path) -> None:
    folder = separated(tmp_path / "out", ["one", "two"])
    track = folder / "two" / "tune"
    for name in ("low", "high"):
        wave, rate_hz = soundfile.read(track / f"{name}.wav")
        soundfile.write(track / f"{name}.wav", 0.25 * wave, rate_hz, subtype="PCM_24")
    values = json.loads((track / MANIFEST_NAME).read_text())
    for entry in values["files"].values():
        entry["gain"] = 0.25
    (track / MANIFEST_NAME).write_text(json.dumps(values))
    out = tmp_path / "page.html"
    export_page(folder, out, ExportOptions(length_s=2))
    with visitor(browser) as page:
        page.add_init_script(LISTEN)
        page.goto(out.as_uri())
        expect(page.locator(".version")).to_have_count(2)
        page.get_by_role("button", name="Play").click()
        hears(page, True, True)
        loudest = []
        for key in "12":
            page.keyboard.press(key)
            page.wait_for_timeout(400)
            loudest.append(max(page.evaluate("window.levels()")[1] for _ in range(25) if not page.wait_for_timeout(30)))
        assert abs(loudest[0] - loudest[1]) < 2


def test_a_second_tab_of_the_same_browser_sees_the_songs(browser: Browser, tmp_path: Path) -> None:
    with served(QuickEngine()) as url, visitor(browser, DESKTOP) as page:
        page.goto(url)
        page.locator("#drop").wait_for()
        page.set_input_files("#files", song(tmp_path / "tune.wav"))
        expect(page.locator("article.song")).to_have_count(1)
        with page.context.new_page() as second:
            second.goto(url)
            expect(second.get_by_role("article", name="tune.wav")).to_be_visible()

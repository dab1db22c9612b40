"""Listeners take whole tests in a headless Chromium: with reloads, without a connection, by keyboard, on a phone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from sqlalchemy.exc import OperationalError

from polyres.listen.store.database import read_ratings
from tests.browser.pages import DESKTOP, PHONE, begin, hear_all, saved, trial_number, visitor
from tests.listen.served import Listening, listening, write_page, write_study

SECONDS = 0.6
QUESTIONS = [
    {"name": "age", "question": "How old are you?", "type": "number"},
    {"name": "music", "question": "Do you make music?", "type": "choice", "choices": ["no", "yes"], "required": True},
]
TWO = [{"name": "quality", "question": "How good?"}, {"name": "interference", "question": "How clean?"}]


def slow(value: str) -> Any:
    return pytest.param(value, marks=pytest.mark.slow)


def rate_rows(page: Page, values: list[int]) -> None:
    for slider, value in zip(page.locator(".row input[type=range]").all(), values, strict=True):
        slider.fill(str(value))


def go_on(page: Page) -> None:
    page.get_by_role("button", name="Next").click()


def kept(server: Listening) -> dict[tuple[int, Any], Any]:
    """(trial, slot or None) -> value or choice, as the page would be told."""
    listener = server.state.store.all_listeners()[0]
    sent = [server.state.planner.send_back(listener, one) for one in server.state.store.saved_ratings(listener.id)]
    return {(one["trial"], one.get("slot")): one.get("choice", one.get("value")) for one in sent}


def test_a_whole_mushra_test_with_a_reload_in_the_middle(browser: Browser, tmp_path: Path) -> None:
    changes = {"consent": "Your answers are kept.\n\nYou may stop.", "questionnaire": QUESTIONS}
    folder = write_study(tmp_path / "study", seconds=SECONDS, changes=changes)
    seen: list[str] = []
    with listening(folder) as server, visitor(browser) as page:
        page.on("response", lambda response: seen.append(response.url))
        page.goto(server.url)
        page.get_by_role("button", name="Begin").click()
        expect(page.get_by_role("alert")).to_have_text("Please tick the box to take part.")
        begin(page, server.url)
        assert trial_number(page) == "Page 1 of 2"
        page.get_by_role("button", name="Next").click(force=True)  # says what is missing, and stays
        assert "4 still to hear · 3 still to answer" in page.locator(".gate").inner_text()
        hear_all(page)
        rate_rows(page, [90, 20, 55])
        go_on(page)
        page.get_by_role("heading", name="Page 2 of 2").wait_for()
        page.locator(".row input[type=range]").nth(1).fill("33")
        page.reload()
        page.get_by_role("heading", name="Welcome back").wait_for()
        page.get_by_role("button", name="Go on").click()
        page.get_by_role("heading", name="Page 2 of 2").wait_for()
        assert page.locator(".row input[type=range]").nth(1).input_value() == "33"
        assert page.locator(".row input[type=range]").nth(0).get_attribute("aria-valuetext") == "not rated"
        hear_all(page)
        rate_rows(page, [10, 34, 100])
        go_on(page)
        page.get_by_role("heading", name="A few questions").wait_for()
        go_on(page)
        assert page.locator("#question-music-error").inner_text() == "Please answer this question."
        page.fill("#question-age", "31,5")
        page.select_option("#question-music", "yes")
        go_on(page)
        page.get_by_role("heading", name="Thank you").wait_for()
        code = page.locator(".code code").inner_text()
        assert code == server.state.completion_code(server.state.store.all_listeners()[0].id)
        page.reload()
        assert page.locator(".code code").inner_text() == code
        page.get_by_role("button", name="The next listener").click()
        page.get_by_role("button", name="Begin").wait_for()
        given = [90, 20, 55, 10, 34, 100]
        assert kept(server) == {(number // 3, number % 3): value for number, value in enumerate(given)}
        assert [(one["name"], one["value"]) for one in server.state.store.answers()] == [
            ("age", "31.5"),
            ("music", "yes"),
        ]
        events = {event["what"] for event in server.state.store.events()}
        assert {"open", "play", "switch", "pause", "leave"} <= events
    ratings = read_ratings(folder)
    assert len(ratings) == 6
    assert all(one.plays >= 1 and one.switches >= 3 and one.started_at < one.finished_at for one in ratings)
    assert not [text for text in seen for secret in ("Secret", "c0", "c1", "p0-", "study.json") if secret in text]


@pytest.mark.slow
def test_a_whole_abx_test_with_a_reload_in_the_middle(browser: Browser, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", "abx", conditions=2, pages=2, seconds=SECONDS)
    with listening(folder) as server, visitor(browser) as page:
        begin(page, server.url)
        hear_all(page)
        page.get_by_label("X is B").check()
        saved(page)
        page.reload()
        page.get_by_role("button", name="Go on").click()
        page.locator(".trial").wait_for()
        expect(page.get_by_label("X is B")).to_be_checked()
        page.get_by_label("X is A").check()
        go_on(page)
        page.get_by_role("heading", name="Page 2 of 2").wait_for()
        hear_all(page)
        page.get_by_label("X is B").check()
        go_on(page)
        page.get_by_role("heading", name="Thank you").wait_for()
        assert kept(server) == {(0, None): "a", (1, None): "b"}
        plans = server.state.planner.trials(server.state.store.all_listeners()[0])
    values = [plan.stimuli.index(plan.x or "") == number for number, plan in enumerate(plans)]
    assert [one.value for one in read_ratings(folder)] == values


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ab", "acr", "dcr", "bs2132"])
def test_the_other_kinds_end_as_well(browser: Browser, tmp_path: Path, kind: str) -> None:
    changes = {"attributes": TWO, "design": {"ties": True}, "gates": {"must_play": False}}
    folder = write_study(tmp_path / "study", kind, conditions=2, pages=1, seconds=SECONDS, changes=changes)
    with listening(folder) as server, visitor(browser) as page:
        begin(page, server.url)
        number = 2 if kind in ("acr", "dcr") else 1
        for trial in range(number):
            page.get_by_role("heading", name=f"Page {trial + 1} of {number}").wait_for()
            if kind == "bs2132":
                rate_rows(page, [1, 2, 3, 4])
            else:
                for group in page.locator("fieldset").all():
                    group.get_by_role("radio").nth(1).check()
            expect(page.locator(".gate")).to_have_text("All done on this page")
            go_on(page)
        page.get_by_role("heading", name="Thank you").wait_for()
    values = sorted((one.attribute, one.value) for one in read_ratings(folder))
    expected = {"ab": [0.5], "acr": [4, 4], "dcr": [4, 4]}.get(kind)
    wanted = [(name, v) for name in ("interference", "quality") for v in expected] if expected else None
    assert values == (wanted or [("interference", 2), ("interference", 4), ("quality", 1), ("quality", 3)])


@pytest.mark.slow
def test_a_lost_connection_loses_no_rating(browser: Browser, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=SECONDS, pages=1, changes={"gates": {"must_play": False}})
    with listening(folder) as server, visitor(browser) as page:
        begin(page, server.url)
        saved(page)
        page.context.set_offline(True)
        rate_rows(page, [11, 22, 33])
        page.get_by_text("Offline – kept on this device").wait_for()
        go_on(page)
        page.get_by_text("Please leave this page open").wait_for()
        assert kept(server) == {}
        page.context.set_offline(False)
        page.get_by_role("heading", name="Thank you").wait_for()
        assert kept(server) == {(0, 0): 11, (0, 1): 22, (0, 2): 33}


def disk_full(*_: object) -> None:
    raise OperationalError("INSERT", {}, Exception("disk full"))


@pytest.mark.slow
def test_ratings_that_were_never_saved_survive_a_reload(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_study(tmp_path / "study", seconds=SECONDS, pages=1, changes={"gates": {"must_play": False}})
    with listening(folder) as server, visitor(browser) as page:
        begin(page, server.url)
        saved(page)
        save = server.state.store.save_ratings
        monkeypatch.setattr(server.state.store, "save_ratings", disk_full)
        rate_rows(page, [11, 22, 33])
        page.get_by_text("Offline").wait_for()
        page.reload()
        page.get_by_role("button", name=re.compile("Go on|Begin")).click()
        page.locator(".trial").wait_for()
        assert [one.input_value() for one in page.locator(".row input").all()] == ["11", "22", "33"]
        assert kept(server) == {}
        monkeypatch.setattr(server.state.store, "save_ratings", save)
        page.evaluate("window.dispatchEvent(new Event('online'))")
        saved(page)
        assert kept(server) == {(0, 0): 11, (0, 1): 22, (0, 2): 33}


def test_everything_can_be_done_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=SECONDS, pages=1, changes={"gates": {"rate_only_playing": True}})
    with listening(folder) as server, visitor(browser) as page:
        page.goto(server.url)
        tab_to(page, "Begin")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="What to do").wait_for()
        tab_to(page, "Next")
        page.keyboard.press("Enter")
        page.locator(".trial").wait_for()
        page.keyboard.press("1")
        for number in (1, 2, 3):
            page.keyboard.press(str(number))
            row = page.locator(f'.row[data-sound="{number - 1}"]')
            row.locator("button.heard").wait_for()
            for _ in range(number):
                page.keyboard.press("Shift+ArrowUp")
        page.keyboard.press("0")
        page.locator("button.reference.heard").wait_for()
        page.keyboard.press("ArrowRight")
        expect(page.locator('button.sound[data-sound="0"]')).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("Space")
        expect(page.locator("button.play")).to_have_attribute("aria-label", "Play")
        page.keyboard.press("ArrowUp")  # nothing is heard, so nothing may be rated
        expect(page.locator(".gate")).to_have_text("Press play first")
        tab_to(page, "Next")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Thank you").wait_for()
        assert kept(server) == {(0, 0): 55, (0, 1): 60, (0, 2): 65}


def tab_to(page: Page, name: str) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == name:
            assert page.evaluate("document.activeElement.matches(':focus-visible')")
            return
    raise AssertionError(f"no way to {name!r} by keyboard")


@pytest.mark.slow
def test_a_region_loops_and_moves_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=2, pages=1)
    with listening(folder) as server, visitor(browser) as page:
        begin(page, server.url)
        start = page.get_by_role("slider", name="Start of the loop")
        start.focus()
        page.keyboard.press("Shift+ArrowRight")
        expect(start).to_have_attribute("aria-valuenow", "1.0")
        page.keyboard.press("Shift+ArrowRight")
        expect(start).to_have_attribute("aria-valuenow", "1.5")  # never shorter than half a second
        page.locator("button.play").click()
        page.wait_for_timeout(700)
        time_s = float(page.locator(".time").inner_text().split()[0].partition(":")[2])
        assert 1.5 <= time_s <= 2
        page.get_by_role("button", name="Whole excerpt").click()
        expect(start).to_have_attribute("aria-valuenow", "0.0")
        box = page.locator(".track").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 20, steps=4)
        page.mouse.up()
        expect(start).to_have_attribute("aria-valuenow", "0.5")
        expect(page.get_by_role("slider", name="End of the loop")).to_have_attribute("aria-valuenow", "1.5")


def seconds_shown(page: Page) -> float:
    return float(page.locator(".time").inner_text().split()[0].partition(":")[2])


@pytest.mark.slow
def test_sounds_that_do_not_loop_stop_and_switches_may_begin_anew(browser: Browser, tmp_path: Path) -> None:
    changes = {"playback": {"loop": False, "restart": True}}
    folder = write_study(tmp_path / "study", seconds=5, pages=1, changes=changes)
    with listening(folder) as server, visitor(browser) as page:
        begin(page, server.url)
        play = page.locator("button.play")
        page.get_by_role("slider", name="Start of the loop").focus()
        page.keyboard.press("Shift+ArrowRight")  # a region plays once as well
        page.get_by_role("button", name="Play sound 1").click()
        while seconds_shown(page) < 2.5:
            page.wait_for_timeout(20)
        page.get_by_role("button", name="Play sound 2").click()
        assert 1.0 <= seconds_shown(page) < 2.5
        expect(play).to_have_attribute("aria-label", "Pause")
        expect(play).to_have_attribute("aria-label", "Play")  # it ends by itself
        assert seconds_shown(page) == pytest.approx(1.0, abs=0.11)
        play.click()
        expect(play).to_have_attribute("aria-label", "Pause")


STOP_AT_ONCE = """
    // Tones end at once, and the place of the quiet one is left for the test to read.
    const start = AudioBufferSourceNode.prototype.start;
    AudioBufferSourceNode.prototype.start = function (...given) {
        if (this.loop) return start.apply(this, given);
        const wave = this.buffer.getChannelData(0);
        const third = wave.length / 3;
        const peaks = [0, 1, 2].map((n) => Math.max(...wave.subarray(n * third, (n + 1) * third)));
        window.quiet = peaks.indexOf(Math.min(...peaks));
        setTimeout(() => this.onended(), 0);
    };
"""


@pytest.mark.slow
def test_the_headphone_check_tells_who_hears_the_quiet_tone(browser: Browser, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=0.05, pages=1, changes={"headphone_check": True})
    with listening(folder) as server, visitor(browser) as page:
        page.add_init_script(STOP_AT_ONCE)
        begin(page, server.url, ".check-card")
        for shift in (1, 0):  # first wrong everywhere, then right
            page.get_by_role("button", name="Start the check" if shift else "Try again").click()
            for _ in range(6):
                page.get_by_role("button", name="Play the tones").click()
                place = (int(page.evaluate("window.quiet")) + shift) % 3
                page.get_by_role("button", name=f"Tone {place + 1}").click()
        page.locator(".trial").wait_for()
        saved(page)
        checks = server.state.store.all_listeners()[0].checks
        assert checks["headphones"] == {"correct": 6, "trials": 6, "attempts": 2, "passed": True}


@pytest.mark.slow
def test_training_level_and_withdrawal(browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    training = [write_page(folder, "t0", 3, True, 0.6)]
    changes = {"training": training, "level_check": True, "gates": {"must_play": False, "must_move": False}}
    write_study(folder, seconds=0.6, pages=1, changes=changes)
    with listening(folder) as server, visitor(browser, locale="zh-CN") as page:
        page.goto(server.url)
        page.get_by_role("button", name="开始").click()
        page.get_by_role("button", name="下一页").click()
        page.get_by_role("button", name="播放").click()
        page.get_by_role("button", name="音量合适").click()
        page.get_by_role("heading", name="练习 1 / 1").wait_for()
        rate_rows(page, [1, 2, 3])
        page.get_by_role("button", name="下一页").click()
        page.get_by_role("button", name="开始测试").click()
        page.get_by_role("heading", name="第 1 / 1 页").wait_for()
        saved(page)
        assert server.state.store.ratings() == []
        assert len(server.state.store.ratings(training=True)) == 3
        page.select_option("#language", "en")
        page.get_by_role("heading", name="Welcome back").wait_for()
        page.locator("#menu summary").click()
        page.get_by_role("button", name="Withdraw and delete").click()
        page.get_by_role("button", name="Delete everything").click()
        page.get_by_role("heading", name="Your answers are deleted").wait_for()
        assert server.state.store.ratings(training=True) == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", slow("dark")])
def test_every_screen_passes_axe(browser: Browser, tmp_path: Path, scheme: Any) -> None:
    changes = {
        "consent": "We keep your answers.",
        "questionnaire": QUESTIONS,
        "attributes": TWO,
        "level_check": True,
        "headphone_check": True,
        "gates": {"must_play": False},
    }
    folder = write_study(tmp_path / "study", seconds=0.3, pages=1, changes=changes)
    with listening(folder) as server, visitor(browser) as page:
        page.emulate_media(color_scheme=scheme)
        page.add_init_script(STOP_AT_ONCE)
        page.goto(server.url)
        page.locator(".welcome").wait_for()
        passes_axe(page)
        begin(page, server.url, "")
        passes_axe(page)
        page.get_by_role("button", name="Next").click()
        page.get_by_role("button", name="Start the check").click()
        passes_axe(page)
        for _ in range(6):
            page.get_by_role("button", name="Play the tones").click()
            page.get_by_role("button", name=f"Tone {page.evaluate('window.quiet') + 1}").click()
        page.locator(".play.large").click()
        passes_axe(page)
        page.get_by_role("button", name="The volume is right").click()
        page.locator(".trial").wait_for()
        passes_axe(page)
        rate_rows(page, [1, 20, 40, 60, 80, 100])
        page.locator(".keys summary").click()
        passes_axe(page)
        go_on(page)
        page.get_by_role("heading", name="A few questions").wait_for()
        go_on(page)
        passes_axe(page)
        page.select_option("#question-music", "no")
        go_on(page)
        page.get_by_role("heading", name="Thank you").wait_for()
        page.locator("#menu summary").click()
        passes_axe(page)
        page.goto(server.admin_url)
        page.get_by_role("table").wait_for()
        passes_axe(page)


def passes_axe(page: Page) -> None:
    page.wait_for_timeout(250)  # colours that change slowly have arrived
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


@pytest.mark.parametrize("kind", ["mushra", slow("abx"), slow("dcr")])
def test_a_phone_shows_everything_without_scrolling_sideways(browser: Browser, tmp_path: Path, kind: str) -> None:
    folder = write_study(tmp_path / "study", kind, conditions=2, pages=1, seconds=SECONDS)
    with listening(folder) as server, visitor(browser, PHONE) as page:
        page.goto(server.url)
        page.get_by_role("button", name="Begin").tap()
        page.get_by_role("button", name="Next").tap()
        page.locator(".trial").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        small = page.evaluate(
            """[...document.querySelectorAll(".trial button:not(.whole), .option, .slide input")]
                .map((element) => [element.className, element.getBoundingClientRect()])
                .filter(([, box]) => box.height < 44 || box.width < 44).map(([name]) => name)"""
        )
        assert small == []
        page.locator("button.sound").last.tap()
        expect(page.locator("button.play")).to_have_attribute("aria-label", "Pause")
        if kind == "mushra":
            box = page.locator(".row input").first.bounding_box()
            assert box is not None
            page.touchscreen.tap(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2)
            saved(page)
            assert 75 <= kept(server)[0, 0] <= 90


@pytest.mark.slow
def test_the_administrator_sees_progress_and_makes_links(browser: Browser, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=SECONDS, pages=1)
    with listening(folder) as server, visitor(browser, DESKTOP) as page:
        page.goto(server.url.rstrip("/") + "/admin")
        page.get_by_label("Admin token").fill("wrong")
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("alert")).to_have_text("This token is not right.")
        page.get_by_label("Admin token").fill(server.state.admin_token)
        page.get_by_role("button", name="Open").click()
        page.get_by_text("Nobody has joined yet.").wait_for()
        page.get_by_label("Number of links").fill("2")
        page.get_by_role("button", name="Make links").click()
        links = page.locator(".links").input_value().split("\n")
        assert len(links) == 2
        with visitor(browser) as listener:
            begin(listener, links[0])
            listener.locator(".trial").wait_for()
            assert "#" not in listener.url  # the token does not stay in the address bar
            listener.locator(".row input").first.fill("70")
            saved(listener)
        page.goto(server.admin_url)
        page.get_by_text("1 listeners, 0 finished").wait_for()
        assert "1 / 3" in page.get_by_role("table").inner_text()
        with page.expect_download() as download:
            page.get_by_role("button", name="ratings.csv").click()
        assert download.value.path().read_text(encoding="utf-8").count("\n") == 2


@pytest.mark.slow
def test_recruited_listeners_who_share_a_browser_stay_apart(browser: Browser, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=0.05, pages=1, changes={"gates": {"must_play": False}})
    with listening(folder) as server, visitor(browser) as page:
        begin(page, f"{server.url}?PROLIFIC_PID=one")
        begin(page, f"{server.url}?PROLIFIC_PID=two")
        page.goto(f"{server.url}?PROLIFIC_PID=one")
        page.get_by_role("button", name="Begin").click()
        page.locator(".trial").wait_for()
        assert [one.external_id for one in server.state.store.all_listeners()] == ["one", "two"]


def test_bad_and_closed_links_say_so(browser: Browser, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=0.05, pages=1)
    with listening(folder, {"open_enrolment": False}) as server, visitor(browser) as page:
        page.goto(server.url)
        expect(page.get_by_role("heading", name="By invitation")).to_be_visible()
        page.goto(f"{server.url}#somebody.else")
        expect(page.get_by_role("heading", name="This link is not valid")).to_be_visible()

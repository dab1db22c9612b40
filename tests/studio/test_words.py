"""Every word of the studio's pages is in both languages, and none is anywhere else."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from polyres.listen.server.web_options import SHARED_DIR
from polyres.studio.export import _page
from polyres.studio.server import STATIC_DIR

SCRIPTS = sorted(path for path in STATIC_DIR.glob("*.js") if path.name != "words.js")
WORDS = (STATIC_DIR / "words.js").read_text(encoding="utf-8")
# Text that is the same everywhere: the name of the page, and both languages at once.
SAME = {"polyres", "studio", "polyres studio"}
# What scripts say to the browser, not to people.
TO_THE_BROWSER = re.compile(r"ArrowLeft|ArrowRight|Home|GET|POST|DELETE|AudioContext|Uint8Array")


def dictionary(name: str) -> dict[str, str]:
    body = WORDS.partition(f"const {name} = {{")[2].partition("\n};")[0]
    return dict(re.findall(r'^  (\w+): "(.*)",$', body, flags=re.MULTILINE))


def literals(text: str) -> list[str]:
    """Return the strings of a script; of templates what lies between the gaps."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    text = re.sub(r"(^|[\s;])//.*$", r"\1", text, flags=re.MULTILINE)
    found = re.findall(r'"((?:[^"\\\n]|\\.)*)"', text)
    for template in re.findall(r"`([^`]*)`", text):
        found += re.split(r"\$\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}", template)
    return found


def test_both_languages_have_the_same_words_with_the_same_gaps() -> None:
    english, chinese = dictionary("EN"), dictionary("ZH")
    assert len(english) > 50
    assert list(english) == list(chinese)
    for key, text in english.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", chinese[key])), key
        assert re.search(r"[\u4e00-\u9fff]", chinese[key]) or key in ("sdr", "progress_of"), key


def test_every_word_that_is_asked_for_exists_and_none_is_left_over() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in [*SCRIPTS, STATIC_DIR / "index.html"]) + _page("t", [])
    calls = re.findall(r"\btr\(([^{)]*)", "".join(path.read_text(encoding="utf-8") for path in SCRIPTS))
    used = {word for call in calls for word in re.findall(r'"(\w+)"', call)}
    used |= set(re.findall(r'data-text="(\w+)"', pages))
    kinds = set(re.findall(r'slider\("(\w+)"', pages))
    used |= {f"{kind}_of" for kind in kinds} | {"language", *kinds, "separate", "reconstruct"}
    known = set(dictionary("EN"))
    assert used - known == set()
    assert {word for word in known - used if not word.startswith("stem_")} == set()


@pytest.mark.parametrize("path", [*SCRIPTS, SHARED_DIR / "dom.js"], ids=lambda path: path.name)
def test_scripts_hold_no_words_of_their_own(path: Path) -> None:
    for text in literals(path.read_text(encoding="utf-8")):
        is_path_of_a_picture = re.fullmatch(r"[A-Za-z][\d. A-Za-z-]*", text) and re.search(r"\d", text)
        if is_path_of_a_picture or TO_THE_BROWSER.fullmatch(text):
            continue
        assert not re.search(r"[A-Za-z]{2,} [A-Za-z]{2,}", text), text
        assert not re.match(r"[A-Z][a-z]{2,}", text), text


class Texts(HTMLParser):
    """Collects what a page says by itself."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(tag)
        self.texts += [str(value) for name, value in attrs if name in ("aria-label", "title", "placeholder", "alt")]

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if data.strip() and not {"script", "style"} & set(self._open):
            self.texts.append(data.strip())


def test_pages_hold_no_words_of_their_own() -> None:
    for page in ((STATIC_DIR / "index.html").read_text(encoding="utf-8"), _page("polyres studio", [])):
        for text in Texts(page).texts:
            assert text in SAME or " · " in text, text
            if " · " in text:
                assert re.search(r"[\u4e00-\u9fff]", text.partition(" · ")[2])

"""The built site, as a reader without a network sees it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.browser import Browser, find_browser

PHONE, DESKTOP = 390, 1280
_NO_PROSE = re.compile(r"<(pre|code|script|style|svg|math|title)\b.*?</\1>", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_ROLE = re.compile(r":(?:class|func|meth|math|attr|exc|mod):|\{(?:generated|toctree)\}")
_LATEX = re.compile(r"\\[a-zA-Z(\[|]|\$\$|\$[^$\n]*[\\_^][^$\n]*\$")
# What reaches over the right edge and is not in a box that scrolls by itself.
_TOO_WIDE = """[...document.querySelectorAll("article *")]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
    .filter(e => !e.closest(".table-wrapper, pre, .formula"))
    .map(e => e.outerHTML.slice(0, 120)).slice(0, 3)"""


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


@pytest.mark.parametrize("markup", [_LATEX, _ROLE], ids=["latex", "roles"])
def test_no_page_shows_raw_markup(site: Path, markup: re.Pattern[str]) -> None:
    for page in pages(site):
        prose = _TAG.sub("", _NO_PROSE.sub("", page.read_text(encoding="utf-8")))
        assert not (found := markup.findall(prose)), f"{page.relative_to(site)}: {found}"


def test_formulas_of_pages_and_of_docstrings_are_mathml(site: Path) -> None:
    for page in ("vector-matching", "methods/upper-bound", "api/core", "api/solvers"):
        formulas = re.findall(r"<math.*?</math>", (site / f"{page}.html").read_text("utf-8"))
        assert formulas and not any("\\" in formula for formula in formulas), page


def test_what_is_called_stands_on_the_page(documented: set[str]) -> None:
    calls = {"subsetopt_torch.SelectiveStep.__call__", "subsetopt_torch.BatchSelector.__call__"}
    assert calls <= documented


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r'<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?//', re.DOTALL)
    for page in pages(site):
        assert not loaded.search(page.read_text(encoding="utf-8")), page.relative_to(site)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    command = find_browser()
    if command is None:
        pytest.skip("no Chromium is installed")
    opened = Browser(command, tmp_path_factory.mktemp("profile"), PHONE)
    yield opened
    opened.close()


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_no_page_is_wider_than_its_window(site: Path, browser: Browser, width: int) -> None:
    browser.resize(width)
    for page in pages(site):
        browser.open(page.as_uri())
        assert browser.evaluate("document.documentElement.scrollWidth") <= width, page.name
        assert browser.evaluate(_TOO_WIDE) == [], page.name


def test_no_page_complains_or_asks_the_network(site: Path, browser: Browser) -> None:
    browser.complaints.clear()
    browser.addresses.clear()
    for page in pages(site):
        browser.open(page.as_uri())
    assert browser.complaints == []
    assert len(browser.addresses) > len(pages(site))
    assert {address.partition(":")[0] for address in browser.addresses} <= {"file", "data"}


@pytest.mark.parametrize(("words", "page"), [("quotas", "constraints"), ("cube", "designs")])
def test_the_search_works_from_a_folder(
    site: Path, browser: Browser, words: str, page: str
) -> None:
    browser.complaints.clear()
    browser.open(f"{(site / 'search.html').as_uri()}?q={words}")
    hits = "[...document.querySelectorAll('#search-results li a')].map(a => a.href)"
    until = time.monotonic() + 30.0
    found: list[str] = []
    while not any(f"/{page}.html" in hit for hit in found):
        assert time.monotonic() < until, f"not among {found}"
        time.sleep(0.1)
        found = browser.evaluate(hits)
    assert browser.complaints == []

"""The report in a real browser: nothing planted runs, nothing is fetched, it fits a telephone, it can be searched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.browser import CHROMIUM, Page, open_page
from support.report_world import evil_run, make_run, spec
from support.stage_world import World

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """evil.html and good.html."""
    folder = tmp_path_factory.mktemp("pages")
    for name, made in (
        ("evil", evil_run(World(folder / "evil"))),
        ("good", make_run(World(folder / "good"), spec(), texts={"prompt": "", "answer": ""})),
    ):
        made.report()
        (folder / f"{name}.html").write_text(made.page(), encoding="utf-8")
    return folder


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with open_page(tmp_path) as page:
        yield page


def test_planted_scripts_do_not_run_and_nothing_is_fetched(page: Page, folder: Path) -> None:
    page.open(folder / "evil.html", width=360)
    assert page.value("document.title") == "default/world – self-rewarding run"
    assert page.console == []
    assert page.requests == [(folder / "evil.html").as_uri()]
    assert page.value("document.documentElement.scrollWidth") <= 360
    # Had something slipped through the escaping, the policy would stop it all the same.
    page.value("document.body.insertAdjacentHTML('beforeend', '<img src=\"x\" onerror=\"document.title = 1\">')")
    page.value("document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 2'}))")
    assert page.value("document.title") == "default/world – self-rewarding run"
    assert "Content Security Policy" in " ".join(page.console)


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_it_fits_every_width(page: Page, folder: Path, width: int) -> None:
    page.open(folder / "good.html", width=width)
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.console == []
    assert page.requests == [(folder / "good.html").as_uri()]


def test_light_dark_and_print(page: Page, folder: Path) -> None:
    colours = (
        "getComputedStyle(document.body).backgroundColor + getComputedStyle(document.querySelector('.f-ink')).fill"
    )
    page.open(folder / "good.html")
    light = page.value(colours)
    page.size(1280, dark=True)
    dark = page.value(colours)
    assert light != dark
    assert page.value("document.querySelectorAll('section > details:not([open])').length") > 0
    assert page.pdf().startswith(b"%PDF")
    page.value("dispatchEvent(new Event('beforeprint'))")
    assert page.value("document.querySelectorAll('section > details:not([open]):not(.long)').length") == 0
    assert page.value("document.querySelector('.long').open") is False  # the whole spec would fill a book


def test_search(page: Page, folder: Path) -> None:
    shown = "Array.from(document.querySelectorAll('.example')).filter(e => e.checkVisibility()).length"
    page.open(folder / "good.html")
    assert page.value(shown) == 12  # of each kind four, the rest behind a fold
    typed = (
        "(text => {const q = document.getElementById('query'); q.value = text; q.dispatchEvent(new Event('input'))})"
    )
    page.value(f"{typed}('SKY blue')")
    assert page.value(shown) == 3
    assert page.value("document.getElementById('hits').textContent") == "3 of 14"
    page.value(
        "(() => {const g = document.getElementById('group'); g.value = 'g2'; g.dispatchEvent(new Event('change'))})()"
    )
    assert page.value(shown) == 1
    page.value(f"{typed}('nobody wrote this')")
    assert page.value(shown) == 0
    assert page.value("document.getElementById('nothing').hidden") is False

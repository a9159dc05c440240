"""`srlm ui` in a real browser: it fits every width, goes on by itself, obeys the keyboard, runs nothing foreign."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from srlm_cli.ui import server
from srlm_contract.status import RunStatus
from support.browser import CHROMIUM, Page, open_page
from support.report_world import evil_run, make_run, spec
from support.stage_world import World
from support.ui_world import MadeSource, served

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> MadeSource:
    folder = tmp_path_factory.mktemp("runs")
    made = MadeSource()
    made.add("done", make_run(World(folder / "done"), spec(2)))
    made.add("twin", make_run(World(folder / "twin"), spec(2, training={"dpo": {"beta": 0.5}})))
    made.add("evil", evil_run(World(folder / "evil")))
    return made


@pytest.fixture
def address(source: MadeSource, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With the key."""
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.05)
    with served(source) as address:
        yield address


@pytest.fixture
def page(tmp_path: Path, address: str) -> Iterator[Page]:
    """A browser that has the cookie."""
    with open_page(tmp_path) as page:
        page.open(address)
        yield page


def eventually(true: Callable[[], object]) -> None:
    """The browser and the server meet over a socket: asked again until it is true, at most half a minute."""
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def press(page: Page, key: str) -> None:
    text = {"Enter": "\r", " ": " "}.get(key, "")
    for kind in ("keyDown", "keyUp"):
        more = {"text": text} if text and kind == "keyDown" else {}
        page.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=_CODES[key], **more)


_CODES = {"Tab": 9, "Enter": 13, " ": 32}


def test_every_page_at_every_width(page: Page, address: str) -> None:
    root = address.partition("?")[0]
    for path in ("", "runs/team/done", "runs/team/evil?model=M1", "compare?run=team/done&run=team/twin&run=team/evil"):
        for width in (390, 768, 1280):
            page.open(root + path, width=width)
            assert page.value("document.documentElement.scrollWidth") <= width, (path, width)
    page.open(f"{root}runs/team/done")
    colours = "getComputedStyle(document.body).backgroundColor + getComputedStyle(document.querySelector('.s0')).stroke"
    light = page.value(colours)
    page.size(1280, dark=True)
    assert page.value(colours) != light
    assert page.value("document.title").endswith("– srlm")
    assert page.console == []
    assert [url for url in page.requests if not url.startswith(root)] == [], "nothing from anywhere else"
    # Had something slipped through the escaping, the policy would stop it all the same.
    page.value("document.body.insertAdjacentHTML('beforeend', '<img src=\"x\" onerror=\"document.title = 1\">')")
    page.value("document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 2'}))")
    assert page.value("document.title").endswith("– srlm")
    assert "Content Security Policy" in " ".join(page.console)


def test_a_run_goes_on_by_itself(page: Page, address: str, source: MadeSource) -> None:
    done = source.made["done"]
    page.open(f"{address.partition('?')[0]}runs/team/done")
    page.value("document.querySelector('#answers details').open = true")
    page.value("document.querySelector('#figures .scroll').focus()")
    try:
        going = RunStatus.parse({**done.status.wire(defaults=False), "phase": "Running", "progress": {"percent": 77}})
        source.made["done"] = replace(done, status=going)
        eventually(lambda: "77%" in page.value("document.getElementById('state').textContent"))
        assert page.value("document.activeElement.className") == "scroll"
        assert page.value("document.querySelector('#answers details').open") is True
        page.value("getSelection().selectAllChildren(document.querySelector('#state .state'))")
        marked = page.value("getSelection().toString()")
        source.made["done"] = replace(done, status=done.status.model_copy(update={"phase": "Held", "tokens": 7}))
        eventually(lambda: page.value("waiting.size") == 1)
        assert page.value("getSelection().toString()") == marked, "what is marked stays, and no click is lost"
        page.value("getSelection().removeAllRanges(); dispatchEvent(new Event('pointerup'))")
        eventually(lambda: "Held" in page.value("document.getElementById('state').textContent"))
    finally:
        source.made["done"] = done


def test_the_keyboard_reaches_everything(page: Page, address: str) -> None:
    page.open(address.partition("?")[0])
    seen = []
    for _ in range(5):
        press(page, "Tab")
        seen.append(page.value("document.activeElement.textContent || document.activeElement.value"))
    assert seen == ["To the content", "Runs", "team/done", "done", "team/twin"]
    press(page, " ")
    assert page.value("document.querySelectorAll('input:checked').length") == 1
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.value(outline) == "solid"
    page.value("document.querySelector('button').focus()")
    press(page, "Enter")
    eventually(lambda: page.value("location.pathname") == "/compare")

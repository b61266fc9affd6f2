"""The service's page in a browser: recordings to a voice that is heard, by mouse, keyboard and microphone."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest
from voices_made import CONSENT, REPO, TEXTS, write_meta_model, write_recordings

from benchmarks.servers import VoiceServer
from metaspeech.voices import wav
from metaspeech.voices.store import VoiceStore

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = """<img src=x onerror="document.title='hacked'">"""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: the page was not opened in a browser")
    folder = tmp_path_factory.mktemp("project")
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (folder / "assets").symlink_to(REPO / "assets")
    write_meta_model(folder / "models/meta_train/tacotron-maml-1")
    server = VoiceServer(folder, "--workers", "1").start()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def browser(server, recordings):
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: the page was not opened in a browser")
    flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--use-fake-device-for-media-stream"]
    flags += ["--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={recordings / '0.wav'}"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    context = browser.new_context(viewport={"width": 1100, "height": 1400}, accept_downloads=True)
    page = context.new_page()
    page.problems, page.asked = [], []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(server.address)
    page.locator("#recordings li").first.wait_for()
    yield page
    assert page.problems == []
    outside = [url for url in page.asked if not url.startswith((server.address, "data:", "blob:"))]
    assert outside == []
    assert "hacked" not in page.title()
    context.close()


def until(page, condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, (condition, page.locator("main").inner_text())
        page.wait_for_timeout(50)


def make(page, name, consent=CONSENT):
    page.fill("#name", name)
    page.fill("#consent", consent)
    page.click("#making summary")
    page.uncheck("#check-texts")
    page.click("#adapt")


def test_recordings_become_a_voice_that_is_heard(page, server, recordings, tmp_path):
    page.locator("#no-voices").wait_for()  # until the page has asked for the voices
    assert not page.locator("#speak").is_visible()
    page.set_input_files("#upload", [str(path) for path in sorted(recordings.iterdir())])
    until(page, f"document.querySelectorAll('#recordings li').length === {len(TEXTS)}")
    assert [one.input_value() for one in page.locator("#recordings input").all()] == list(TEXTS)
    page.locator("#recordings input").nth(3).fill(HOSTILE + TEXTS[3])
    make(page, "anna", HOSTILE + CONSENT)
    until(page, "/is made/.test(document.getElementById('job-status').textContent)")
    assert "Adapted from models/meta_train/tacotron-maml-1" in page.inner_text("#job-model")
    assert page.locator("#checks tbody tr").count() == len(TEXTS)
    assert VoiceStore(server.folder / "voices").card("anna").consent == HOSTILE + CONSENT
    page.fill("#text", f"boy made bath. {HOSTILE} king pushed house 😀")
    page.fill("#seed", "7")
    page.focus("#text")
    page.keyboard.press("Control+Enter")
    until(page, "document.getElementById('audio').currentTime > 0.05")
    assert "cannot be heard" in page.inner_text("#spoken-notes").lower()
    assert "voice 'anna'" in page.inner_text("#spoken-notes")
    for canvas, least in (("mel", 9), ("alignment", 4)):  # nobody has trained the attention: it is faint
        drawn = f"document.getElementById('{canvas}').getContext('2d').getImageData(60, 0, 400, 100).data"
        assert page.evaluate(f"new Set({drawn}).size") >= least
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "anna.wav")
    assert re.search(r"voice 'anna'.*text sha256 [0-9a-f]{16}, seed 7, speed 1", wav.note_of(tmp_path / "anna.wav"))
    page.click("#about-voice summary")
    assert HOSTILE in page.inner_text("#voice-facts")


def test_the_microphone_makes_a_voice(page, server):
    for row in range(2):
        record = page.get_by_role("button", name=f"Record recording {row + 1}", exact=True)
        record.focus()
        page.keyboard.press("Enter")
        page.get_by_role("button", name=f"Stop recording {row + 1}", exact=True).wait_for()
        page.wait_for_timeout(1200 + 600 * row)  # each time the microphone hears the same from its beginning on
        page.keyboard.press("Enter")
        page.get_by_role("button", name=f"Play recording {row + 1}", exact=True).wait_for()
        until(page, f"/recorded, [12]\\.[0-9] s/.test(document.querySelectorAll('.said')[{row}].textContent)")
    make(page, "mic")
    until(page, "/is made|used/.test(document.getElementById('job-status').textContent)")
    assert "mic is made" in page.inner_text("#job-status"), page.inner_text("main")
    assert len(VoiceStore(server.folder / "voices").card("mic").recordings) == 2
    page.click("#about-voice summary")
    page.click("#delete")
    page.click("#delete-yes")
    until(page, "/was deleted/.test(document.getElementById('spoken-status').textContent)")
    assert "mic" not in VoiceStore(server.folder / "voices").names()


def test_what_is_refused_is_said(page):
    page.fill("#name", "../x")
    page.fill("#consent", CONSENT)
    page.click("#adapt")
    assert "no recording yet" in page.inner_text("#make-status")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_are_drawn(page, scheme):
    page.emulate_media(color_scheme=scheme)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 20, 23)"}[scheme]


def test_everything_can_be_reached_by_keyboard(page):
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
    assert {"name", "add", "upload", "consent", "adapt", "Record recording 1"} <= reached

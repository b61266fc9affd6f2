"""The report in a browser: it plays, sorts, obeys keys, needs nothing else, and names of speakers stay inert."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import replace
from itertools import pairwise

import pandas as pd
import pytest
from markup import Balanced

from benchmarks.report_page import build, write_results
from metaspeech.evaluation.summary import CHECKS, LEAKAGE, Summary
from metaspeech.report.findings import findings
from metaspeech.report.listening import listening
from metaspeech.report.markdown import build_markdown
from metaspeech.report.results import Results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = """</script><script>document.title = "hacked"</script><img src=x onerror="document.title='hacked'">'"&"""
NAMES = [HOSTILE, "שלום \u202egnp.exe", "🎙️ $\\frac$ {{ 7*7 }}", "plain", "another"]
SHOTS, SEEDS = (1, 5), (1, 2)
CHECKED = pd.DataFrame(
    [
        ["phonemes", "wrong text", 0.2, 0.1, 0.3, "at least 0.9 <b>", False],
        ["similarity", "other speakers", 0.5, 0.4, 0.6, "below the recordings", True],
    ],
    columns=CHECKS,
)
LEAKED = pd.DataFrame(
    [["speakers", True, "no test speaker was trained on"], ["judges", False, "of one the corpora are not known"]],
    columns=LEAKAGE,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of two numbers of shots and two seeds, with a judge that failed; speakers with hostile names."""
    folder = tmp_path_factory.mktemp("results")
    write_results(
        folder, NAMES, algorithms=("transfer", "maml"), shots=SHOTS, seeds=SEEDS, text=HOSTILE,
        checks=CHECKED, leakage=LEAKED,
    )  # fmt: skip
    path = folder / "results/evaluate/summary.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for column in content["columns"]:
        column["trusted"] = column["name"] != "phoneme_error"
    path.write_text(json.dumps(content), encoding="utf-8")
    (folder / "index.html").write_text(build(folder, "A <b>title</b>"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: the page was not opened in a browser")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: the page was not opened in a browser")
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, folder):
    """Open, with what went wrong and what was asked for."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.problems, page.asked = [], []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto((folder / "index.html").as_uri())
    yield page
    assert page.problems == []
    outside = [url for url in page.asked if not url.startswith(("data:", "file:"))]
    assert outside == []
    assert sum(url.startswith("file:") for url in page.asked) == 1, "the page itself and nothing beside it"
    assert "hacked" not in page.title()
    page.close()


def until(page, condition, seconds=8.0):
    """Asked for again and again: the page's own policy allows no scripts that are put in, nor waiting inside it."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(20)


def first_column(table):
    return table.locator("tbody:not(.fixed) tr").evaluate_all("rows => rows.map(row => row.cells[0].innerText.trim())")


def column_values(table, column):
    cells = table.locator("tbody:not(.fixed) tr").evaluate_all(
        f"rows => rows.map(row => row.cells[{column}].dataset.value)"
    )
    return [float(value) for value in cells if value is not None]


def test_the_page_opens_without_errors_or_requests(page):
    assert page.locator("h1").inner_text()
    assert page.locator("table").count() > 6


def test_a_clip_plays_one_at_a_time_and_escape_stops(page):
    buttons = page.locator(".listen .play:visible")
    buttons.nth(0).click()
    until(page, "document.getElementById('player').currentTime > 0.05")
    assert "playing" in buttons.nth(0).get_attribute("class")
    buttons.nth(1).click()
    until(page, "document.getElementById('player').currentTime > 0.05")
    assert page.locator(".playing").count() == 1
    assert "playing" in buttons.nth(1).get_attribute("class")
    page.keyboard.press("Escape")
    assert page.locator(".playing").count() == 0
    assert page.evaluate("document.getElementById('player').paused")


def test_a_clip_comes_to_its_end(page):
    page.locator(".listen .play:visible").nth(3).click()
    until(page, "!document.querySelector('.playing')")
    assert page.evaluate("document.getElementById('player').duration") == pytest.approx(1.2, abs=0.15)


def test_every_button_has_a_sound_of_its_own(page, text):
    sounds = json.loads(re.search(r'id="sounds">(.*?)</script>', text, flags=re.DOTALL)[1])
    places = {int(one) for one in re.findall(r'data-clip="(\d+)"', text)}
    assert places == set(range(len(sounds)))
    assert len(sounds) == len(NAMES) * (2 + 2 * 3 * 3)  # references; two algorithms, three steps, three systems


def test_arrows_move_among_clips_and_enter_plays(page):
    page.locator(".listen .play:visible").nth(0).focus()
    place = "[document.activeElement.closest('tr').rowIndex, document.activeElement.closest('td').cellIndex]"
    row, column = page.evaluate(place)
    page.keyboard.press("ArrowRight")
    assert page.evaluate(place) == [row, column + 1]
    page.keyboard.press("ArrowDown")
    assert page.evaluate(place) == [row + 1, column + 1]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")  # nothing above
    assert page.evaluate(place) == [row, column]
    page.keyboard.press("Enter")
    until(page, "document.getElementById('player').currentTime > 0.05")
    assert page.locator('.listen:visible .play[tabindex="0"]').count() == 1, "one stop of the tab key a table"


def test_a_click_on_a_heading_sorts_and_another_turns_it_round(page):
    table = page.locator("table.numbers.sortable").first
    heading = table.locator("thead th", has_text="Speaker similarity")
    column = heading.evaluate("cell => cell.cellIndex")
    names = first_column(table)
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending", "the better end first"
    values = column_values(table, column)
    assert values == sorted(values, reverse=True)
    assert sorted(first_column(table)) == sorted(names)
    heading.locator("button").click()
    assert column_values(table, column) == sorted(values)
    assert table.locator("[aria-sort]").count() == 1
    assert table.locator("tbody.fixed tr").count() == 2, "references stay above"


def test_tables_sort_by_keyboard(page):
    table = page.locator("table.numbers.sortable").first
    button = table.locator("thead th", has_text="MCD").locator("button")
    button.focus()
    page.keyboard.press("Enter")
    column = button.locator("..").evaluate("cell => cell.cellIndex")
    values = column_values(table, column)
    assert values == sorted(values)
    assert values[0] != values[-1]


def test_listening_sorts_by_what_was_measured_on_the_clips(page):
    table = page.locator("table.listen:visible")
    heading = table.locator("thead tr:nth-child(2) th").nth(1)  # transfer after 5 steps
    heading.locator("button").click()
    values = column_values(table, 4)  # who, real, copy, step 0, step 5
    assert len(values) == len(NAMES)
    assert values == sorted(values, reverse=heading.get_attribute("aria-sort") == "descending")
    table.locator("thead th").first.locator("button").click()
    assert len(set(first_column(table))) == len(NAMES)


def test_the_choice_of_shots_shows_the_curves_of_those(page):
    shown = """[...document.querySelectorAll('[data-of="shots-0"]')]
        .filter(one => !one.hidden).map(one => one.dataset.value)"""
    assert set(page.evaluate(shown)) == {"5"}
    page.locator('.choice[data-for="shots-0"] input[value="1"]').check()
    assert set(page.evaluate(shown)) == {"1"}


def test_the_blind_comparison_names_the_starts_after_the_answer_only(page):
    blind = page.locator(".blind")
    assert "MAML" not in blind.inner_text()
    blind.locator("[data-role=a]").click()
    until(page, "document.getElementById('player').currentTime > 0.05")
    blind.locator("[data-answer=a]").click()
    told = blind.locator(".reveal").inner_text()
    assert "MAML" in told
    assert "Transfer" in told
    assert re.search(r"(MAML|Transfer) 1 of 1", told)
    blind.locator(".next").click()
    assert blind.locator(".reveal").inner_text() == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_either_scheme(browser, folder, scheme):
    """WCAG 2.1: 4.5 for text, 3 for lines."""
    page = browser.new_page(color_scheme=scheme)
    page.goto((folder / "index.html").as_uri())
    names = ["page", "panel", "ink", "muted", "ahead", "behind", "baseline", *(f"series-{k}" for k in range(6))]
    found = page.evaluate(
        "names => names.map(name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim())",
        names,
    )
    colours = dict(zip(names, found, strict=True))
    page_is_dark = luminance(colours["page"]) < 0.1
    assert page_is_dark == (scheme == "dark")
    for name in ("ink", "muted", "ahead", "behind"):
        assert contrast(colours[name], colours["page"]) >= 4.5, name
        assert contrast(colours[name], colours["panel"]) >= 4.5, name
    for name in ("baseline", *(f"series-{k}" for k in range(6))):
        assert contrast(colours[name], colours["page"]) >= (3 if scheme == "dark" else 2.4), name
    page.close()


def test_print_leaves_out_sound_and_cuts_no_table(browser, folder):
    page = browser.new_page(viewport={"width": 703, "height": 1000})  # A4 between margins of 12 mm, at 96 dots an inch
    page.goto((folder / "index.html").as_uri())
    page.emulate_media(media="print")
    for hidden in ("#listen", ".play", "nav", ".choice"):
        assert page.locator(f"{hidden}:visible").count() == 0, hidden
    wide = page.evaluate(
        "[...document.querySelectorAll('main > *:not(.wide) table')].filter(one => one.offsetParent)"
        ".map(one => one.scrollWidth).filter(width => width > document.querySelector('main').clientWidth + 1)"
    )
    assert wide == []
    assert page.pdf(prefer_css_page_size=True)[:4] == b"%PDF"
    page.close()


def test_a_narrow_page_scrolls_only_inside_its_tables(browser, folder):
    page = browser.new_page(viewport={"width": 420, "height": 900})
    page.goto((folder / "index.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => (one.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    page.close()


def test_sound_is_bounded_and_its_speakers_spread_evenly(folder):
    results = Results(folder / "results/evaluate")
    whole = listening(results)
    one = sum(map(len, whole.sounds)) // len(NAMES)
    some = listening(results, most=int(3.5 * one))
    assert [panel.speaker for panel in some.panels] == [NAMES[0], NAMES[2], NAMES[4]]
    assert some.left_out == 2
    assert sum(map(len, some.sounds)) <= 3.5 * one
    assert not listening(replace_audible(results, [])).panels


def replace_audible(results, episodes):
    changed = Results(results.audio.parent)
    changed.summary = replace(results.summary, settings={**results.summary.settings, "audible": episodes})
    return changed


def test_hostile_names_are_text(page, text):
    assert "<img src=x" not in text
    assert "<script>document" not in text
    shown = page.locator(".listen:visible tbody th bdi").all_text_contents()
    assert set(shown) == set(NAMES)
    assert page.locator("img").count() == 0


def test_the_page_is_well_formed(text):
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert all(address.startswith(("data:", "#")) for address in parser.addresses)
    assert "default-src 'none'" in text


def test_a_judge_that_failed_is_marked_everywhere_and_quoted_nowhere(folder, text):
    summary = Summary.read(folder / "results/evaluate/summary.json")
    for system in summary.systems:
        found = findings(summary, system.name)
        quoted = [one for one in (found.headline, found.speed, *found.details) if one and "honeme error" in one]
        assert all("struck through" in one for one in quoted)
        assert len(quoted) == 1
    headings = re.findall(r"<th[^>]*>(?:(?!</th>).)*Phoneme error.*?</th>", text)
    assert headings
    assert all("✗" in one for one in headings)
    marked = build_markdown(summary, "t")
    assert "Phoneme error ✗" in marked
    assert "✗ phonemes, wrong text: " in marked
    assert "at least 0.9 &lt;b&gt;" in text


def test_checks_leakage_and_seeds_are_listed(text):
    assert "What the judges were tried on" in text
    assert "no test speaker was trained on" in text
    assert "Not certain that the evaluation saw nothing of training: judges" in text
    assert "Between seeds of training" in text


def test_the_summary_reads_without_being_rendered(folder):
    lines = build_markdown(Summary.read(folder / "results/evaluate/summary.json"), "t").splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert len(tables) == 3 * (2 + 2 + 2 * 2)  # heads and rules, references, two algorithms at two steps
    for first, second in pairwise(tables):
        if first.split("|")[1] != second.split("|")[1]:
            continue
        assert len(first) == len(second)
    assert max(map(len, tables)) < 170


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    """Of #rgb or #rrggbb, relative (WCAG 2.1)."""
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

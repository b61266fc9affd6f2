"""What the docs say of the program is so: messages, commands, files and links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metaspeech.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
OF_OTHERS = ("command 'g++' failed", "Unable to acquire lock", "is busy, it is being blocked by")  # compiler, DVC
CODE = "\n".join(
    path.read_text(encoding="utf-8")
    for folder in ("src", "pipelines", "notebooks")
    for path in ROOT.glob(f"{folder}/**/*.py")
)  # fmt: skip


def test_messages_that_are_explained_are_messages_of_the_program():
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)
    assert len(quoted) > 20
    joined = re.sub(r'"\s*\n\s*f?"', "", CODE)  # strings that go on in the next line
    for message in quoted:
        if any(one in message for one in OF_OTHERS):
            continue
        for part in filter(None, message.split("...")):
            assert part in joined, message


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            titles = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{target}: {sorted(slugs)}"


def test_commands_that_are_shown_exist():
    commands = {
        tuple(one.split()[:1])
        for page in PAGES
        for one in re.findall(r"^ {4}metaspeech ([a-z]+)", page.read_text(), re.M)
    }
    known = CliRunner().invoke(app, ["--help"]).output
    for (name,) in commands:
        assert re.search(rf"\b{name}\b", known), f"metaspeech {name}"
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for name in re.findall(r"^ {4}make ([a-z-]+)", page.read_text(), re.MULTILINE):
            assert name in targets, f"{page.name}: make {name}"


def test_modules_that_are_run_exist():
    for page in PAGES:
        for module in re.findall(
            r"python -m ((?:benchmarks|pipelines|metaspeech)[\w.]*)", page.read_text(encoding="utf-8")
        ):
            path = ROOT / ("src" if module.startswith("metaspeech") else "") / Path(*module.split("."))
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{page.name}: {module}"

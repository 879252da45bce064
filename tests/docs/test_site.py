"""The site: it builds strictly, loads nothing from a network, and its reference has every key and every metric."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import forked
import pages
import pytest

from probegrid.evaluation.metrics import METRICS
from probegrid.judges import all_judges
from probegrid.schema import Config, DecodingConfig, ModelConfig, PromptConfig

pytestmark = pytest.mark.slow  # Sphinx, once


@pytest.fixture(scope="module")
def site(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The site as ``make docs`` builds it."""

    def build(folder: Path) -> None:
        how = ("-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", str(pages.DOCS), str(folder))
        plain = {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": ""}  # warnings of Sphinx's are not ours to mend
        done = forked.run([sys.executable, *how], env=os.environ | plain, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return once("site", build)


class _Links(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            self.ids.add(str(values["id"]))
        if tag == "a" and values.get("href"):
            self.links.append(str(values["href"]))
        elif tag in ("img", "script", "link", "iframe", "source"):
            self.loaded += [str(values[name]) for name in ("src", "href") if values.get(name)]


def test_no_link_is_dead(site: Path) -> None:
    """Pages and the places in them; README's too, which hosts show beside the repository's files."""
    parsed = {page: _Links(page.read_text()) for page in site.glob("*.html")}
    assert len(parsed) > 20
    dead = []
    for page, found in parsed.items():
        for link in found.links + found.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = page if not parts.path else (page.parent / unquote(parts.path)).resolve()
            place = unquote(parts.fragment)
            if not target.exists() or (place and target in parsed and place not in parsed[target].ids):
                dead.append((page.name, link))
    assert not dead
    readme = pages.ROOT / "README.md"
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", readme.read_text()):
        assert urlsplit(link).scheme or (pages.ROOT / link).exists(), link


def test_nothing_is_loaded_from_a_network(site: Path) -> None:
    loaded = {
        (page.name, link)
        for page in site.glob("*.html")
        for link in _Links(page.read_text()).loaded
        if urlsplit(link).netloc
    }
    styles = {
        file.name
        for file in site.rglob("*.css")
        if re.search(r"(@import|url\()\s*['\"]?(https?:)?//", file.read_text())
    }
    assert not loaded
    assert not styles


def test_every_key_is_on_its_page(site: Path) -> None:
    text = (site / "keys.html").read_text()
    for prefix, owner in (
        ("", Config),
        ("model.", ModelConfig),
        ("prompt.", PromptConfig),
        ("decoding.", DecodingConfig),
    ):
        for part in fields(owner):
            assert f"{prefix}{part.name}</span>" in text, part.name
    for key in (
        "probe.from",
        "probe.layers",
        "dataset.rule",
        "hydra.launcher.setup",
        "model.architecture.layers",
        "device_map.replicas",
    ):
        assert f"{key}</span>" in text, key


def test_every_metric_and_every_judge_is_on_its_page(site: Path) -> None:
    text = (site / "metrics.html").read_text()
    for name in METRICS:
        assert f"{name}&lt;name&gt;</span>" in text if name.endswith("_") else f"{name}</span>" in text, name
    for name in all_judges():
        assert f"{name}</span>" in text, name


def test_every_page_is_reached(site: Path) -> None:
    """From the first page, by the list at its side."""
    start = _Links((site / "index.html").read_text()).links
    made = {page.name for page in site.glob("*.html")} - {
        "index.html",
        "genindex.html",
        "py-modindex.html",
        "search.html",
    }
    assert not made - {urlsplit(link).path for link in start}

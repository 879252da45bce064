"""The report's page and the pages of examples as a person uses them, in a real browser: by pointer, on a narrow screen,
on paper, and by what a checker of accessibility (axe) says.

``PROBEGRID_AXE`` names an ``axe.min.js``; else npm is asked for the package ``axe-core``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, open_browser
from recorder import Recorder

import probegrid
from probegrid.report.report import report_on
from probegrid.schema import ReportConfig

SCREENSHOTS = Path(os.environ.get("PROBEGRID_SCREENSHOTS", Path(__file__).with_name("screenshots")))
QUESTIONS = ("dataset=facts", "dataset.num_samples=60", "prompt.num_few_shot=2")
CELLS: tuple[tuple[str, ...], ...] = (
    QUESTIONS,
    (*QUESTIONS, "quantization=nf4"),
    (*QUESTIONS, "probe=semantic_entropy", "decoding.num_generations=4"),
    ("dataset=facts_statements", "dataset.num_samples=40", "probe=logistic", "probe.layers=[2,5]"),
)
PAPER = 1047  # pixels between the margins of A4, lying
WIDEST = "return Math.max(...[...document.querySelectorAll(arguments[0])].map((n) => n.getBoundingClientRect().right))"
AXE = """
const done = arguments[0];
axe.run(document, {resultTypes: ['violations']}).then((found) => done(found.violations
  .filter((one) => ['serious', 'critical'].includes(one.impact)).map((one) => `${one.id}: ${one.nodes[0].html}`)));
"""


@dataclass(frozen=True)
class Pages:
    """A report and the keys of its cells, in the order of ``CELLS``."""

    report: Path
    results: Path
    keys: list[str]

    def examples(self, cell: int) -> str:
        """Address of a cell's own page."""
        return (self.results / self.keys[cell] / "examples.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser(SCREENSHOTS) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Pages:
    folder = tmp_path_factory.mktemp("pages")
    places = (f"results_dir={folder / 'results'}", f"store_dir={folder / 'store'}", "tracking=none")
    keys = [probegrid.run([*places, *overrides]).key for overrides in CELLS]
    config = ReportConfig(folder=str(folder / "report"), compare="quantization", resamples=50)
    report_on(folder / "results", config)
    return Pages(folder / "report" / "index.html", folder / "results", keys)


def packed(npm: str, folder: Path) -> bool:
    """Whether npm could fetch the checker into a folder."""
    command = [npm, "pack", "axe-core"]
    return subprocess.run(command, check=False, cwd=folder, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checker's script."""
    if named := os.environ.get("PROBEGRID_AXE"):
        return Path(named).read_text()
    folder, npm = tmp_path_factory.mktemp("axe"), shutil.which("npm")
    if npm is None or not packed(npm, folder):
        pytest.skip("needs axe-core: PROBEGRID_AXE=axe.min.js, or npm and its registry")
    with tarfile.open(next(folder.glob("*.tgz"))) as package:
        found = package.extractfile("package/axe.min.js")
        assert found is not None
        return found.read().decode()


def look(browser: Browser, address: str, *, width: int = 1400, dark: bool = False, media: str = "") -> None:
    """Load a page at a width, light or dark, as a screen or as paper shows it."""
    driver = browser.driver
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get("about:blank")
    driver.get_log("browser")  # what earlier pages had to say
    driver.get(address)


def run(browser: Browser, script: str, *arguments: Any) -> Any:
    return browser.driver.execute_script(script, *arguments)


def test_tables_sort_filter_and_hide_columns(pages: Pages, browser: Browser) -> None:
    look(browser, pages.report.as_uri())
    rows = "//section[@id='table']//tbody/tr"
    heads = [head.text for head in browser.all("//section[@id='table']//thead//button")]
    assert "layer" in heads  # the one that was chosen
    at = heads.index("AUROC") + 1
    numbers = (
        "const cells = [...document.querySelectorAll(`#table tbody tr td:nth-child(${arguments[0]})`)];"
        "return cells.map((cell) => parseFloat(cell.textContent))"
    )
    before = run(browser, numbers, at)
    browser.click("//section[@id='table']//thead//button[starts-with(., 'AUROC')][1]")
    assert run(browser, numbers, at) == sorted(before, reverse=True)
    browser.click("//section[@id='table']//thead//button[starts-with(., 'AUROC ')][1]")
    assert run(browser, numbers, at) == sorted(before)
    browser.find("//input[@id='find-table']").send_keys("semantic")
    browser.wait(lambda: len(browser.all(rows)) == 1, "one row")
    browser.see("1 of 4 rows")
    browser.click("//section[@id='table']//summary[.='columns']")
    browser.click("//section[@id='table']//fieldset/label[.='AUROC']")
    assert not browser.find(f"{rows}/td[{at}]").is_displayed()
    assert browser.driver.get_log("browser") == []


def test_figures_answer_to_the_pointer(pages: Pages, browser: Browser) -> None:
    look(browser, pages.report.as_uri())
    for figure in browser.all("//figure"):
        run(browser, "arguments[0].scrollIntoView()", figure)
        browser.wait(lambda figure=figure: figure.get_attribute("data-drawn") == "yes", "a figure")
    hovered = run(
        browser,
        "const box = document.querySelector('#roc .live > div');"
        "Plotly.Fx.hover(box, [{curveNumber: 0, pointNumber: 2}]);"
        "return box.querySelector('.hoverlayer').textContent",
    )
    assert "AUROC" in hovered
    dashes = run(
        browser,
        "const box = document.querySelector('#roc .live > div');"
        "return box.data.map((one) => one.line.dash + one.line.color)",
    )
    assert len(dashes) == len({*dashes}) >= 2
    assert browser.driver.get_log("browser") == []  # nothing was refused by the page's policy


def test_a_curve_of_seeds_has_a_band(browser: Browser, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "results")
    for seed in range(2):
        recorder("dataset=facts", f"seed={seed}", metrics={})
    report_on(tmp_path / "results", ReportConfig(folder=str(tmp_path / "report"), resamples=20))
    look(browser, (tmp_path / "report" / "index.html").as_uri())
    figure = browser.find("//section[@id='roc']//figure")
    run(browser, "arguments[0].scrollIntoView()", figure)
    browser.wait(lambda: figure.get_attribute("data-drawn") == "yes", "the figure")
    traces = "return document.querySelector('#roc .live > div').data.map((one) => [one.fill ?? '', one.name ?? ''])"
    assert run(browser, traces) == [["", ""], ["tonexty", ""], ["", "AUROC 0.750 ± 0.000 (2)"]]
    assert browser.driver.get_log("browser") == []


def test_a_row_leads_to_its_confident_and_wrong_answers(pages: Pages, browser: Browser) -> None:
    look(browser, pages.report.as_uri())
    browser.click("//section[@id='table']//tbody/tr[1]//button[.='examples']")
    browser.see("Confident and wrong")
    link = "//dialog//h3[.='Confident and wrong']/following-sibling::p[1]/a"
    browser.keep("report_examples")
    browser.click(link)
    browser.wait(lambda: "examples.html#confident-wrong" in browser.driver.current_url, "the cell's page")
    browser.find("//button[@value='confident-wrong' and @aria-pressed='true']")
    verdicts = {cell.text for cell in browser.all("//div[@id='list']//tbody/tr/td[4]") if cell.text}
    assert verdicts == {"wrong"}


def test_two_cells_stand_side_by_side(pages: Pages, browser: Browser) -> None:
    look(browser, pages.report.as_uri())
    browser.click("//section[@id='comparisons']//button[.='side by side']")
    browser.see("nf4 beside none", "answers have another text")
    browser.click("//dialog//a[.='all of them side by side']")
    browser.see("Two cells side by side")
    changed = len(browser.driver.execute_script("return shown.map((row) => row.id)"))
    told = run(browser, "return data.rows.filter((row) => row.at[0].answer !== row.at[1].answer).length")
    assert changed == told > 0
    browser.keep("examples_side_by_side")


def test_another_cells_page_can_be_put_beside_one(pages: Pages, browser: Browser) -> None:
    look(browser, pages.examples(0))
    file = pages.results / pages.keys[1] / "examples.html"
    browser.find("//input[@id='beside']").send_keys(str(file))
    browser.see("answer changed", "A: tiny-none-facts-gnll")
    browser.find("//input[@id='beside']").send_keys(str(pages.results / pages.keys[3] / "examples.html"))
    browser.see("holds statements, this page answers")


def test_thousands_of_rows_do_not_lag(pages: Pages, browser: Browser) -> None:
    """A page of 10,000 rows: only those in view are in the document, and sorting them takes no second."""
    many = (
        "for (let n = 1; data.rows.length < 10000; n += 1)"
        " data.rows.push({...data.rows[n % 60], id: `more-${n}`, found: undefined});"
    )
    look(browser, pages.examples(0))
    took = run(
        browser,
        f"{many} const begun = performance.now();"
        "refresh(); document.querySelectorAll('#list thead button')[4].click(); list.scrollTop = 200000; drawRows();"
        "return [performance.now() - begun, document.querySelectorAll('#list tbody tr').length]",
    )
    assert took[1] < 100
    assert took[0] < 5_000, took  # 60 ms on a quiet machine
    browser.see("10000 of 10000 shown")


def test_small_scores_are_no_noughts_and_an_odd_address_is_no_end(pages: Pages, browser: Browser) -> None:
    look(browser, f"{pages.examples(0)}#100%")
    browser.see("shown")
    assert run(browser, "return [1e-12, 0, -0.0004, 0.5, 12345].map(number)") == [
        *("1.00e-12", "0.000", "-4.00e-4", "0.500", "1.23e+4")
    ]
    look(browser, f"{pages.examples(0)}#constructor")
    browser.see("shown")


def test_a_statement_stands_in_its_conversation(pages: Pages, browser: Browser) -> None:
    look(browser, pages.examples(3), dark=True)
    browser.click("//button[@value='all']")
    browser.click("//div[@id='list']//tbody//button")
    browser.see("Score by layer", "Where it stands")
    browser.find("//span[contains(@class, 'statement this')]")
    browser.keep("examples_statements_dark")


@pytest.mark.parametrize("width", [1400, 800])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_stands_beside_the_screen(pages: Pages, browser: Browser, width: int, dark: bool) -> None:
    for name, address in (("report", pages.report.as_uri()), ("examples", pages.examples(0))):
        look(browser, address, width=width, dark=dark)
        browser.find("//main")
        assert run(browser, "return document.documentElement.scrollWidth") <= width, name
        browser.keep(f"{name}_{width}{'_dark' if dark else ''}")
    look(browser, pages.report.as_uri(), width=width)
    for box in browser.all(
        "//div[contains(@class, 'wide')]"
    ):  # every column comes into view inside its table
        run(browser, "arguments[0].scrollLeft = 1e6", box)
        reached = (
            "const right = (node) => node.getBoundingClientRect().right;"
            "return right(arguments[0].querySelector('tr').lastElementChild) <= right(arguments[0]) + 1"
        )
        assert run(browser, reached, box)


def test_names_stay_beside_the_numbers_of_a_scrolled_row(pages: Pages, browser: Browser) -> None:
    look(browser, pages.report.as_uri(), width=800)
    at = (
        "const box = document.querySelector('#table .wide');"
        "const seen = [0, 1e6].map((left) => { box.scrollLeft = left;"
        "  const names = [...box.querySelectorAll('tbody tr:first-child td.name')];"
        "  return names.map((name) => name.getBoundingClientRect().left); });"
        "return [box.scrollLeft, ...seen]"
    )
    scrolled, before, after = run(browser, at)
    assert scrolled > 0
    assert len(before) > 1
    assert after == pytest.approx(before, abs=1.5)


def test_no_number_is_lost_on_paper(pages: Pages, browser: Browser) -> None:
    look(browser, pages.report.as_uri(), width=PAPER, media="print")
    run(browser, "window.dispatchEvent(new Event('beforeprint'))")
    assert run(browser, WIDEST, "td, img") <= PAPER + 1
    cut = (
        "return [...document.querySelectorAll('td')]"
        ".filter((n) => n.clientWidth && n.scrollWidth > n.clientWidth + 1).length"
    )
    assert run(browser, cut) == 0
    heads = "return [...document.querySelectorAll('#table thead th, #ranking thead th')].map((n) => n.innerText.trim())"
    assert all(run(browser, heads))  # as text: what can be pressed is not repeated on a table's later pages
    browser.keep("report_print")
    printed = browser.driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    assert len(printed["data"]) > 10_000


def test_a_tall_figure_is_printed_in_rows_of_panels(browser: Browser, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "results")
    for dataset in ("facts", "facts_rare", "squad", "trivia_qa", "sciq", "coqa", "nq_open"):
        recorder(f"dataset={dataset}", metrics={})
    report_on(tmp_path / "results", ReportConfig(folder=str(tmp_path / "report"), resamples=20))
    look(browser, (tmp_path / "report" / "index.html").as_uri(), width=PAPER, media="print")
    run(browser, "window.dispatchEvent(new Event('beforeprint'))")
    sizes = (
        "const image = document.querySelector('#roc figure > img');"
        "return [...document.querySelectorAll('#roc .row')].map((row) => [row.clientWidth, row.clientHeight,"
        " row.firstChild.clientHeight, row.firstChild.offsetTop, image.naturalHeight / image.naturalWidth])"
    )
    rows = run(browser, sizes)
    assert len(rows) == 3
    below = 0.0
    for (
        width,
        height,
        whole,
        top,
        ratio,
    ) in rows:  # each a window on the whole drawing, where the last one ended
        assert whole == pytest.approx(width * ratio, abs=2)
        assert top == pytest.approx(-below, abs=2)
        below += height
    assert below == pytest.approx(rows[0][2], abs=4)
    assert not browser.find("//section[@id='roc']//figure/img").is_displayed()
    run(browser, "window.dispatchEvent(new Event('afterprint'))")
    assert browser.all("//div[@class='row']") == []


@pytest.mark.parametrize("dark", [False, True])
def test_a_checker_finds_no_serious_fault(pages: Pages, browser: Browser, axe: str, dark: bool) -> None:
    browser.driver.set_script_timeout(300)
    for address in (pages.report.as_uri(), pages.examples(0), pages.examples(3)):
        look(browser, address, dark=dark)
        run(browser, axe)
        assert browser.driver.execute_async_script(AXE) == [], address

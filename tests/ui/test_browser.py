"""What a person sees: MLflow's pages over a real sweep, and the report, in a real browser.

MLflow's pages are found by what they say and by the ids that MLflow gives its own tests. Pictures are kept in
``screenshots`` beside this file, or in ``$PROBEGRID_SCREENSHOTS``.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import forked
import pytest
from browser import Browser, open_browser
from mlflow import MlflowClient
from mlflow_server import free_port, run_server

SCREENSHOTS = Path(os.environ.get("PROBEGRID_SCREENSHOTS", Path(__file__).with_name("screenshots")))
QUANTIZATIONS, DATASETS = ("none", "nf4"), ("facts", "facts_rare")
PROBES = ("gnll", "semantic_entropy", "p_true", "logistic")
GRID = (
    "experiment=uncertainty",
    f"quantization={','.join(QUANTIZATIONS)}",
    f"dataset={','.join(DATASETS)}",
    f"probe={','.join(PROBES)}",
    f"dataset.num_samples={os.environ.get('PROBEGRID_UI_SAMPLES', '60')}",
    "report.compare=quantization",
)
NAMES = [f"tiny-{quantization}-{dataset}-{probe}" for quantization, dataset, probe in itertools.product(
    QUANTIZATIONS, DATASETS, PROBES
)]  # fmt: skip
METRIC = "//a[@title='Plot chart' and text()='{}']"
# a table of MLflow's is two grids, names and values, of which only the rows in view are there
TABLE = "const table = arguments[0].closest('[role=grid]').parentElement.parentElement;"
TABLE_TEXT = f"{TABLE} return table.textContent"
VALUES = f"{TABLE} return [...table.querySelectorAll('[role=grid]')].at(-1)"
NO_ASSISTANT = """
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
"""  # else a panel takes the right third of the first page
EXPAND = "//*[contains(@data-component-id, 'runnamecellrenderer')]"
ROW = "//*[@role='row' and .//a[.='{}']]"


@dataclass(frozen=True)
class Sweep:
    """A finished sweep: where it ran, the server that has it, and its runs by name."""

    folder: Path
    uri: str
    experiment: str
    parent: str
    children: dict[str, str]

    def page(self, path: str) -> str:
        """A page of its experiment."""
        return f"{self.uri}/#/experiments/{self.experiment}/{path}"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with open_browser(SCREENSHOTS) as opened:
        yield opened


@pytest.fixture(scope="session")
def sweep(browser: Browser, tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[Sweep]:
    """The grid of 2 quantizations x 2 datasets x 4 probes on the embedded model, run as a command."""
    folder = tmp_path_factory.mktemp("ui")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "NO_PROXY": "127.0.0.1,localhost"}
    program = Path(sys.executable).with_name("probegrid")
    with run_server(folder / "server", migrated, free_port()) as uri:
        command = [str(program), *GRID, f"tracking.uri={uri}", "hydra.launcher.poll_s=0.3"]
        forked.run(command, cwd=folder, env=environment, check=True, timeout=900)
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("probegrid")
        assert experiment is not None
        runs = list(client.search_runs([experiment.experiment_id]))
        (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
        children = {run.info.run_name: run.info.run_id for run in runs if run is not parent}
        browser.driver.get(uri)
        browser.driver.execute_script(NO_ASSISTANT)
        yield Sweep(folder, uri, experiment.experiment_id, parent.info.run_id, children)


def test_every_cell_is_a_child_with_its_five_choices(sweep: Sweep) -> None:
    assert sorted(sweep.children) == sorted(NAMES)
    client = MlflowClient(sweep.uri)
    for name, run_id in sweep.children.items():
        data = client.get_run(run_id).data
        groups = ("model", "quantization", "device_map", "dataset", "probe")
        model, quantization, device_map, dataset, probe = (data.params[group] for group in groups)
        assert (f"{model}-{quantization}-{dataset}-{probe}", device_map) == (name, "auto")
        assert data.tags["mlflow.parentRunId"] == sweep.parent
        assert not [param for param in data.params if param.startswith("report")]


def open_page(browser: Browser, url: str) -> None:
    """Load a page anew: MLflow's pages differ by their fragment alone, which loads nothing."""
    browser.driver.get("about:blank")
    browser.driver.get(url)


def test_the_experiment_leads_to_its_runs_and_their_numbers(sweep: Sweep, browser: Browser) -> None:
    """As on a first visit: MLflow opens on traces, and the description has the link to the runs."""
    open_page(browser, f"{sweep.uri}/#/experiments")
    browser.click("//a[.='probegrid']")
    link = "//a[.='Runs with their numbers']"
    browser.wait(lambda: browser.find(link).get_attribute("href"), "the link in the description")
    open_page(browser, str(browser.find(link).get_attribute("href")))
    browser.find("//a[starts-with(., 'sweep uncertainty')]")
    browser.click(EXPAND)
    browser.wait(lambda: all(browser.all(ROW.format(name)) for name in NAMES), "all cells")
    browser.see("accuracy", "auroc", "semantic_entropy", "nf4", "facts_rare")
    browser.keep("mlflow_runs")


def test_comparing_runs_shows_what_differs(sweep: Sweep, browser: Browser) -> None:
    """Ticks a cell and the same cell in 4 bits, presses Compare, and hides the parameters that are the same."""
    open_page(browser, sweep.page("runs?workflowType=machine_learning&viewStateShareKey=probegrid"))
    browser.click(EXPAND)
    chosen = ("tiny-none-facts-gnll", "tiny-nf4-facts-gnll")
    for name in chosen:
        browser.click(f"{ROW.format(name)}//input[contains(@aria-label, 'toggle row selection')]")
    browser.click("//button[.='Compare']")
    browser.see("Comparing 2 Runs from 1 Experiment", *chosen)
    for group in ("model", "quantization", "device_map", "dataset", "probe"):
        browser.find(f"//*[text()='{group}']")
    browser.click("//button[@aria-label='Parameters - Show diff only']")
    browser.wait(lambda: not browser.all("//*[text()='model.path']"), "what is the same to go")
    browser.find("//*[text()='nf4']")
    browser.driver.execute_script("arguments[0].scrollIntoView()", browser.find("//*[text()='Run details']"))
    browser.keep("mlflow_compare")
    metrics = [MlflowClient(sweep.uri).get_run(sweep.children[name]).data.metrics for name in chosen]
    for name in ("accuracy", "accuracy_ci_low", "accuracy_ci_high", "auroc", "auroc_ci_low", "auroc_ci_high"):
        browser.wait(lambda name=name: scrolled_to(browser, name), name)
        table = browser.driver.execute_script(TABLE_TEXT, browser.find(METRIC.format(name)))
        assert all(f"{of_run[name]:.3f}"[:-1] in table for of_run in metrics), table


def scrolled_to(browser: Browser, metric: str) -> bool:
    """Whether a metric is in view; else its table is scrolled a little."""
    if browser.all(METRIC.format(metric)):
        return True
    values = browser.driver.execute_script(VALUES, browser.all("//a[@title='Plot chart']")[0])
    browser.turn_wheel(values, 150)
    return False


def test_the_sweeps_own_run_has_the_table_and_the_report(sweep: Sweep, browser: Browser) -> None:
    open_page(browser, sweep.page(f"runs/{sweep.parent}?workflowType=machine_learning"))
    browser.click("//*[text()='Load more']")
    browser.see(*NAMES)
    browser.click("//*[text()='Show more']")
    browser.wait(
        lambda: len(browser.all("//table//td[.='semantic_entropy']")) >= len(DATASETS) * 2, "the table"
    )
    browser.see("16 cells", "quantization compared on the same examples")
    browser.keep("mlflow_parent")
    open_page(browser, sweep.page(f"runs/{sweep.parent}/artifacts/report/index.html"))
    browser.see("report", "index.html", "manifest.json")
    browser.find("//iframe")
    browser.keep("mlflow_artifacts")


def test_the_report_has_its_tables_and_every_figure(sweep: Sweep, browser: Browser) -> None:
    program = Path(sys.executable).with_name("probegrid")
    command = [str(program), "action=report", "report.compare=probe"]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    forked.run(command, cwd=sweep.folder, env=offline, check=True, timeout=300, capture_output=True)
    browser.driver.get_log("browser")  # what earlier pages had to say
    browser.driver.get((sweep.folder / "report" / "index.html").as_uri())
    browser.see("Cells", "Paired comparisons", "Other scores")
    assert len(browser.all("//section[@id='table']//tbody/tr")) == len(NAMES)
    assert len(browser.all("//section[@id='comparisons']//tbody/tr")) == 4 * 6
    figures = sorted(file.stem for file in (sweep.folder / "report" / "figures").glob("*.svg"))
    assert {
        "auroc_by_device_hours",
        "roc",
        "risk_coverage",
        "reliability",
        "auroc_by_layer",
        "speed",
        "memory",
    } <= {*figures}
    widths = {
        section.get_attribute("id"): section.find_element("tag name", "img").get_property("naturalWidth")
        for section in browser.all("//section[.//img]")
    }
    assert sorted(widths) == figures
    assert all(width > 0 for width in widths.values()), widths
    browser.keep("report")
    assert browser.driver.get_log("browser") == []


def test_a_cell_shows_its_data_and_its_examples(sweep: Sweep, browser: Browser) -> None:
    """The dataset among the inputs of the run, by name and digest; the examples as a table."""
    run_id = sweep.children["tiny-none-facts-gnll"]
    (read,) = MlflowClient(sweep.uri).get_run(run_id).inputs.dataset_inputs
    open_page(browser, sweep.page(f"runs/{run_id}?workflowType=machine_learning"))
    browser.see(f"facts ({read.dataset.digest})")
    browser.keep("mlflow_inputs")
    open_page(browser, sweep.page(f"runs/{run_id}/artifacts/examples.json"))
    browser.see("question", "references", "Which instrument does")
    browser.keep("mlflow_examples")
    same = {
        run.inputs.dataset_inputs[0].dataset.digest
        for name, run in (
            (name, MlflowClient(sweep.uri).get_run(one)) for name, one in sweep.children.items()
        )
        if "-facts-" in name and "logistic" not in name
    }
    assert same == {read.dataset.digest}  # the same questions, whichever cell asked them

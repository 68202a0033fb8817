"""The MLflow pages as a person sees them, in a real browser."""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient
from selenium import webdriver
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from servers import free_port
from urllib3 import PoolManager, Retry

from search.run import main
from search.tracking import NOTE

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="chromium and chromium-driver are not installed (`make test` tries to)"
)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1600,1000",
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = Options()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def server(tmp_path: Path, miniature: list[str], caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    """A study in miniature, browsed as `make ui` does."""
    caplog.set_level(logging.ERROR, logger="urllib3.connectionpool")
    overrides = [part for change in miniature for part in ("--set", change)]
    # Not the default folder: MLflow keeps its connection to a relative path, whatever the folder then is.
    out = tmp_path / "runs"
    assert main(["--study", "norm_ablation", "--scale", "laptop", "--seeds", "2", "--out", str(out), *overrides]) == 0
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", f"sqlite:///{out / 'mlflow.db'}"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    answered = Retry(total=120, backoff_factor=0.5, backoff_max=1)
    PoolManager().request("GET", f"{address}/health", retries=answered)
    yield address
    process.terminate()
    process.wait(timeout=30)


def test_the_experiment_page_lists_the_studys_trials(browser: webdriver.Chrome, server: str) -> None:
    """As a person finds them: open the experiment, unfold the study's run; where the page hangs, load it anew."""
    fold = "//a[contains(., 'norm_ablation-laptop (study)')]/ancestor::*[@role='gridcell']//button"
    trials = [f"{arm} · seed {seed}" for arm in ("BatchNorm", "LayerNorm") for seed in (0, 1)]
    wait = WebDriverWait(browser, 45, ignored_exceptions=(WebDriverException,))

    def listed(driver: webdriver.Chrome) -> bool:
        return all(name in text(driver) for name in trials)

    def clicked(driver: webdriver.Chrome) -> bool:
        driver.find_element(By.XPATH, fold).click()
        return True

    for _ in range(4):
        browser.get(f"{server}/#/experiments/1/runs")
        browser.refresh()
        with suppress(TimeoutException):
            wait.until(clicked)
            wait.until(listed)
            break
    assert listed(browser), f"the trials are not listed; the page says:\n{text(browser)}"
    assert "5 matching runs" in text(browser)


def text(driver: webdriver.Chrome) -> str:
    return str(driver.find_element(By.TAG_NAME, "body").text)


def test_the_report_opens_without_a_network(browser: webdriver.Chrome, server: str, tmp_path: Path) -> None:
    report = tmp_path / "runs/norm_ablation-laptop/report.html"
    browser.get(report.as_uri())
    assert "What does BatchNorm give in speed" in browser.find_element(By.TAG_NAME, "h1").text
    assert len(browser.find_elements(By.TAG_NAME, "svg")) == 6
    for width in (400, 900, 1400):
        browser.set_window_size(width, 900)
        overflow = browser.execute_script("return document.documentElement.scrollWidth > window.innerWidth")
        assert not overflow, f"the page is wider than {width} pixels"


def test_notes_and_names_run_nothing_in_mlflow(browser: webdriver.Chrome, server: str, tmp_path: Path) -> None:
    """Questions, answers and arms are copied as they were typed."""
    harm = '<img src="x" onerror="window.ran = 1"><script>window.ran = 1</script>'
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs/mlflow.db'}")
    [study] = client.search_runs(["1"], "tags.trial = 'all'")
    run = study.info.run_id
    client.set_tag(run, NOTE, f"what was typed {harm} was shown")
    client.set_tag(run, "arm", harm)
    client.set_tag(run, "mlflow.runName", harm)
    wait = WebDriverWait(browser, 45, ignored_exceptions=(WebDriverException,))
    for page, shown in ((f"experiments/1/runs/{run}", "what was typed"), ("experiments/1/runs", "onerror")):
        browser.get(f"{server}/#/{page}")
        browser.refresh()
        wait.until(lambda driver, shown=shown: shown in text(driver))
        assert browser.execute_script("return window.ran === undefined")

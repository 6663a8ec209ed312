"""A report in a real browser: no console errors and no network requests."""

import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segnetr.metrics import score_masks, summarize
from segnetr.outputs.reports.case_section import read_case_section
from segnetr.outputs.reports.figures import Figure
from segnetr.outputs.reports.run_report import RunReport, write_run_report
from segnetr.outputs.tables.case_records import CaseRecord, write_case_records
from segnetr.outputs.tables.scores import write_per_case_csv

pytestmark = pytest.mark.slow

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000"),
]


def jpeg(shade):
    file = io.BytesIO()
    Image.new("RGB", (60, 40), (shade, 90, 120)).save(file, "JPEG")
    return file.getvalue()


def write_page(folder: Path) -> Path:
    """Return a page with every part of a report."""
    scores, records = [], []
    for number in range(6):
        ground_truth = np.zeros((20, 20, 4), np.uint8)
        ground_truth[4:12, 4:12] = 1
        scores += score_masks(
            np.roll(ground_truth, number, axis=0),
            ground_truth,
            classes=("background", "left ventricle"),
            case_id=f"c{number}",
            spacing=(1.0, 1.0, 3.0),
        )
        records.append(
            CaseRecord(
                case_id=f"c{number}",
                patient_id=f"p{number // 2}",
                grid=(20, 20, 4),
                spacing=(1.0, 1.0, 3.0),
                seconds=0.1,
                facts={"phase": "ED" if number % 2 else "ES", "group": "AB"[number % 2]},
            )
        )
    write_per_case_csv(folder / "per_case.csv", scores)
    write_case_records(folder / "cases.json", records)
    slices = tuple(jpeg(40 * number) for number in range(5))
    report = RunReport(
        title="A page",
        summaries=summarize(scores, bootstrap=50),
        curves=[{"step": step, "phase": "train", "total": 1 / step} for step in range(1, 20)],
        figures=[
            Figure(
                name="worst-1", title="Worst: c5", caption="c", alt="a", data=jpeg(9), slices=slices
            )
        ],
        cases=read_case_section(folder),
    )
    write_run_report(folder / "report.html", report)
    return folder / "report.html"


def open_page(page: Path, folder: Path) -> tuple[str, list[str], set[str]]:
    """Return the content of a page, its console messages and its network requests."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    log = folder / "net.json"
    done = subprocess.run(
        [chromium, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}",
         "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    requests = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # What the browser itself asks for (updates, the time) has no page as its initiator.
    requested = {
        request["url"]
        for request in requests
        if str(request.get("url", "")).startswith(("http", "ws"))
        and request.get("initiator", "not an origin") != "not an origin"
    }
    return done.stdout, console, requested


def test_page_opens_in_chromium_without_errors_and_network_requests(tmp_path):
    content, console, requested = open_page(write_page(tmp_path), tmp_path)
    assert content.count('type="radio"') == 5
    assert console == []
    assert requested == set()


def test_errors_and_network_requests_of_a_page_are_detected(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        '<html><body><img src="http://127.0.0.1:9/x.png"><script>console.error("no")</script>'
    )
    _, console, requested = open_page(page, tmp_path)
    assert console
    assert requested == {"http://127.0.0.1:9/x.png"}

"""The HTML report, as data and as what a browser makes of it."""

from __future__ import annotations

import dataclasses
import html
import json
import re

import pytest

from gpt2dist.compare.command import CompareRequest, compare, read_runs
from gpt2dist.compare.show.page import embedded, page
from gpt2dist.compare.stats.comparison import compare_runs
from tests.compare import chromium

needs_chromium = pytest.mark.skipif(
    chromium.PROGRAM is None, reason="no chromium on this machine: the page is not opened"
)
EVIL = '</script><script>document.title="owned"</script><b onclick="x">&amp;\u2028'
FINEWEB = "data.source=hf:HuggingFaceFW/fineweb:sample-10BT"


def final(loss):
    return ((1, 5.0), (4, loss + 0.4), (8, loss))


@pytest.fixture
def runs(make, runs_dir):
    """Six priced runs, one without a price and one that did not finish."""
    for seed in range(3):
        name, loss = f"small-{seed}", 3.4 + seed / 100
        make(name, FINEWEB, f"train.seed={seed}", curve=final(loss), usd_per_hour=2 + seed / 10)
    for number, rate in enumerate(("1e-3", "3e-3")):
        make(
            f"rate-{rate}", FINEWEB, f"optim.peak_lr={rate}", curve=final(3.2 + number), seconds=5e3
        )
    make("stopped", FINEWEB, "optim.peak_lr=4e-3", curve=final(3.6), ended="budget", seconds=400)
    make("unpriced", FINEWEB, "optim.peak_lr=5e-3", curve=final(3.1), usd_per_hour=None)
    return read_runs(CompareRequest(runs_dir=str(runs_dir)))


def test_embedded_json_cannot_leave_its_element_and_says_the_same():
    tree = {"name": EVIL, "<!--": ["\u2029", 'quotes " \\ and </SCRIPT >']}
    text = embedded(tree)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == tree


def test_the_page_fetches_nothing(runs):
    text = page(compare_runs(runs), "usd")
    assert "default-src 'none'" in text
    code = text.partition('<script type="application/json"')[0] + text.rpartition("<script>")[2]
    links = re.findall(r"https?://[^\s\"'`]+", code)
    assert links == ["http://www.w3.org/2000/svg"], "the name of SVG's namespace, never fetched"
    assert not re.search(r"\b(src|href)=[\"'](?!data:)", code)
    assert not re.search(r"\b(fetch|XMLHttpRequest|import)\s*\(", code)


def test_the_command_writes_page_picture_and_csv(runs, runs_dir, tmp_path):
    files = {name: str(tmp_path / "out" / f"report.{name}") for name in ("html", "png", "csv")}
    compare(CompareRequest(runs_dir=str(runs_dir), **files), lambda _: None)
    assert (tmp_path / "out/report.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "out/report.png").read_bytes().startswith(b"\x89PNG")


@needs_chromium
def test_a_run_without_gpus_has_no_unknown_gpu_hours(make, runs_dir, tmp_path):
    make("on-cpu", gpu=False)
    comparison = compare_runs(read_runs(CompareRequest(runs_dir=str(runs_dir))))
    path = tmp_path / "report.html"
    path.write_text(page(comparison, "usd"), encoding="utf-8")
    opened = chromium.open_page(path, tmp_path / "profile")
    assert opened.console == []
    assert opened.count(r"<td[^>]*>no GPU<") == 1


@needs_chromium
def test_the_plot_is_drawn_with_every_run_that_has_a_price(runs, tmp_path):
    axis, shown = "usd", len(runs) - 1
    comparison = compare_runs(runs, target_loss=3.5)
    path = tmp_path / "report.html"
    path.write_text(page(comparison, axis), encoding="utf-8")
    opened = chromium.open_page(path, tmp_path / "profile")
    assert opened.console == []
    assert opened.count(r'<circle[^>]*class="point') == shown
    assert opened.count(r'class="point hollow"') == 1
    assert opened.count(r'<path[^>]*class="frontier"') == 1
    assert opened.count(r'<path[^>]*class="curve"') == shown
    # One level for each released GPT-2, wherever it lies.
    assert opened.count(r'class="level"') == 4
    assert opened.count(r"<tr tabindex") == len(runs)
    frontier = {comparison.runs[index].name for index in comparison.frontier[axis]}
    drawn = set(re.findall(r'<text[^>]*class="name"[^>]*>([^<]*)</text>', opened.dom))
    assert drawn
    assert drawn <= frontier
    steps = re.search(r'<path d="([^"]*)" class="frontier"', opened.dom).group(1)
    assert len(re.findall("[ML]", steps)) == 2 * len(frontier) - 1


@needs_chromium
def test_a_name_made_of_markup_stays_text(runs, tmp_path):
    named = [dataclasses.replace(runs[0], name=EVIL, ended="<i>", device=EVIL), *runs[1:]]
    path = tmp_path / "report.html"
    path.write_text(page(compare_runs(named), "tokens"), encoding="utf-8")
    opened = chromium.open_page(path, tmp_path / "profile")
    assert opened.console == []
    assert "<title>What each dollar bought</title>" in opened.dom
    assert opened.count("<script") == 2
    assert html.escape(EVIL, quote=False) in opened.dom
    assert opened.count(r'class="point') == len(runs), "every run has tokens"


@needs_chromium
def test_arrow_keys_go_from_run_to_run_and_controls_change_the_axis(runs, tmp_path):
    comparison = compare_runs(runs)
    press = """
    <script>
      const chart = document.getElementById("chart");
      const key = (name) => chart.dispatchEvent(new KeyboardEvent("keydown", { key: name }));
      const seen = [];
      const note = () => seen.push(document.querySelector("#tip strong").textContent);
      key("Home"); note();
      key("ArrowRight"); note();
      key("End"); note();
      key("Escape"); seen.push(String(document.getElementById("tip").hidden));
      document.querySelector('input[value="hours"]').click();
      key("End"); note();
      document.body.dataset.seen = JSON.stringify(seen);
    </script></body>"""
    path = tmp_path / "report.html"
    path.write_text(page(comparison, "usd").replace("</body>", press), encoding="utf-8")
    opened = chromium.open_page(path, tmp_path / "profile")
    assert opened.console == []
    seen = json.loads(html.unescape(re.search(r'data-seen="([^"]*)"', opened.dom).group(1)))
    by_usd = sorted((run for run in runs if run.usd), key=lambda run: (run.usd, run.final_val_loss))
    longest = max(runs, key=lambda run: (run.hours, run.final_val_loss))
    names = [run.name for run in by_usd]
    assert seen == [names[0], names[1], names[-1], "true", longest.name]

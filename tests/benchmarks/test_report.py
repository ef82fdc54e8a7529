from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING

from benchmarks.chart import Bar, Panel, svg
from benchmarks.measure import Usage
from benchmarks.report import Report, draw
from benchmarks.results import Result, append, grouped, read

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.results import Scenario

SVG = "{http://www.w3.org/2000/svg}"


def result(tool: str, wall: float, scenario: Scenario = "cold", sent: int = 5_000_000, ground: str = "sci") -> Result:
    usage = Usage(wall=wall, cpu=2 * wall, memory=50_000_000, written=0)
    registry = Usage(wall=0, cpu=0.25, memory=0, written=0)
    return Result(
        ground=ground, tool=tool, scenario=scenario, usage=usage, steps={"build": wall}, registry=registry, sent=sent,
        received=0, requests=7,
    )  # fmt: skip


def report(*results: Result) -> Report:
    return Report(results=results, machine="2 cores", ground="10 packages", notes=["note"])


def test_results_survive_a_file(tmp_path: Path) -> None:
    path = tmp_path / "results"
    assert read(path) == []
    written = [result("a", 1.5), result("b", 2, "empty runner")]
    for one in written:
        append(path, one)
    assert read(path) == written


def test_groups_are_in_the_order_of_scenarios() -> None:
    groups = grouped([result("b", 3, "empty runner"), result("b", 1), result("a", 1), result("b", 2), result("b", 9)])
    assert list(groups) == [("cold", "b"), ("cold", "a"), ("empty runner", "b")]
    assert groups["cold", "b"].summary.wall == 2
    assert groups["cold", "b"].middle.usage.wall == 2


def test_table_tells_ratios_to_ours() -> None:
    text = report(result("ociforge, gzip", 2), result("docker, BuildKit", 32)).text("chart.svg")
    assert text.startswith("2 cores. Medians of 1 rounds, all tools in turn. Environment: 10 packages.\n\n![")
    assert "](chart.svg)" in text
    assert (
        "| cold | docker, BuildKit | 32.00 (32.00 - 32.00) | 64.00 | 16.00 | 16.00 | 50 | 0 | 5.00 | 0.00 | 7 | 0.25 |"
        in text
    )
    assert "| cold | ociforge, gzip | docker, BuildKit | wall | 0.062 | 0.125 |" in text
    assert text.endswith("\n- note")


def test_goals_are_left_out_without_what_they_are_held_against() -> None:
    text = report(result("ociforge, gzip", 2), result("ociforge, gzip", 1, "application changed")).text(None)
    assert "wanted at most" not in text
    small = [result("ociforge, gzip", 2, ground="web"), result("docker, BuildKit", 32, ground="web")]
    assert "wanted at most" not in report(*small).text(None)


def test_chart_has_a_bar_for_each_number() -> None:
    root = ElementTree.fromstring(svg("a <title>", "s", [Panel("one & two", [Bar("x", 4, True), Bar("y", 1)])]))
    bars = root.findall(f"{SVG}rect")
    assert [bar.get("class") for bar in bars] == ["ours", "other"]
    assert float(bars[0].get("width", 0)) == 4 * float(bars[1].get("width", 0))
    assert [element.text for element in root.iter(f"{SVG}text")] == ["one & two", "x", "4.00 s", "y", "1.00 s"]


def test_chart_of_a_report_has_a_panel_for_each_scenario() -> None:
    text = draw(report(result("ociforge, gzip", 2), result("buildah", 20), result("buildah", 9, "nothing changed")))
    titles = [element.text for element in ElementTree.fromstring(text).iter() if element.get("class") == "title"]
    assert titles == ["cold: wall time", "nothing changed: wall time"]
    assert re.findall(r">(\w+)[^<]*</text>", text)[1] == "ociforge"

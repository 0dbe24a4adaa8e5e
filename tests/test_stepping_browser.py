"""The page that one steps through, in a browser: keys, buttons, and what stays in sight.

Any Chromium that can print a page's elements will do; without one nothing here runs.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from spfemu.cli.demo import race_program
from spfemu.cli.stepping import page
from spfemu.exploring import explore

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
HELPERS: Final = """
const errors = [], told = [];
addEventListener("error", (event) => errors.push(event.message));
const now = () => document.querySelector("section:not([hidden])");
const at = (what) => now().querySelector(what);
function press(key, on) {
  const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
  return !(on || document.body).dispatchEvent(event);  // whether the page took it
}
// A page shows "step 12 (7 of 20)".
const place = () => Number(at("output").textContent.match(/[(](\\d+) of/)[1]);
"""


class Browser:
    """Prints what a page has become once a script has used it."""

    def __init__(self, command: str, folder: Path) -> None:
        self.command, self.folder = command, folder

    def told(self, text: str, script: str) -> Any:
        """Runs ``script`` in the page, and returns what it has pushed to ``told``."""
        last = (
            f"<script>{HELPERS}\nsetTimeout(() => {{ try {{ {script} }} catch (error) {{"
            "errors.push(String(error)); } document.body.append(Object.assign("
            'document.createElement("pre"), { id: "told", '
            "textContent: JSON.stringify([errors, told]) })); }, 500)</script></body>"
        )
        file = self.folder / "page.html"
        file.write_text(text.replace("</body>", last), encoding="utf-8")
        done = subprocess.run(
            [self.command, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             f"--user-data-dir={self.folder}/profile", "--window-size=1400,800",
             "--virtual-time-budget=5000", "--dump-dom", file.as_uri()],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        found = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
        if found is None:
            return None
        errors, told = json.loads(html.unescape(found[1]))
        assert errors == []
        return told


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    command = next(filter(None, map(shutil.which, BROWSERS)), None)
    if command is None:
        pytest.skip("no Chromium")
    there = Browser(command, tmp_path_factory.mktemp("browser"))
    if there.told("<body></body>", "told.push(1)") != [1]:
        pytest.skip(f"{command} cannot print a page")
    return there


@pytest.fixture(scope="module")
def findings() -> list[dict[str, Any]]:
    found = explore(race_program(), variants_default="fixed", mutants=["A7"])["violations"]
    assert len(found) > 1
    return [{**one, "replay": ["replay"]} for one in found]


def shown(findings: list[dict[str, Any]], title: str = "title") -> str:
    return page(title, "summary", findings, ["mapper", "writer"])


def test_keys_and_buttons_step_the_same_way_wherever_the_focus_is(
    browser: Browser, findings: list[dict[str, Any]]
) -> None:
    told = browser.told(
        shown(findings[:1]),
        """
        const slider = at("input[type=range]");
        for (const on of [document.body, slider, at("button"), at("input[type=checkbox]")]) {
          press("Home", on);
          const places = [place()];
          for (const key of ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowUp"]) {
            press(key, on);
            places.push(place());
          }
          told.push(places.join(" "));
        }
        press("PageDown", slider); told.push(place());
        press("PageUp", slider); told.push(place());
        told.push(press("PageDown"));
        for (const button of now().querySelectorAll("button")) {
          press("Home"); press("ArrowRight"); press("ArrowRight");
          button.click();
          told.push([button.title, place()]);
        }
        told.push(now().querySelectorAll(".steps tbody tr:not(.quiet)").length);
        """,
    )
    *there, last = told
    assert there == [
        *["1 2 3 2 1 1"] * 4, 11, 1, False,
        ["Home", 1], ["arrow left or up", 2], ["arrow right or down", 4], ["End", last],
    ]  # fmt: skip


def test_once_a_finding_is_chosen_left_and_right_step_and_the_list_keeps_up_and_down(
    browser: Browser, findings: list[dict[str, Any]]
) -> None:
    told = browser.told(
        shown(findings),
        """
        const list = document.querySelector("select");
        list.value = "1";
        list.dispatchEvent(new Event("change"));
        told.push(at("h2").textContent, press("ArrowRight", list), place(), list.value);
        told.push(press("ArrowLeft", list), place(), press("ArrowDown", list), place());
        """,
    )
    chosen = findings[1]
    assert told[0].startswith(chosen["invariant"])
    assert told[0].endswith(chosen["what"])
    assert told[1:] == [True, 2, "1", True, 1, False, 1]


def test_what_nobody_can_step_through_takes_no_keys(
    browser: Browser, findings: list[dict[str, Any]]
) -> None:
    empty = {**findings[0], "timeline": [], "fired": None}
    script = """
        told.push(now().textContent.includes("nothing to step through"), press("ArrowDown"));
        const list = document.querySelector("select");
        list.value = "1";
        list.dispatchEvent(new Event("change"));
        told.push(press("ArrowDown"), place());
    """
    assert browser.told(shown([empty, findings[1]]), script) == [True, False, True, 2]


def test_where_nothing_tells_the_story_everything_is_shown(
    browser: Browser, findings: list[dict[str, Any]]
) -> None:
    looks = [step for step in findings[0]["timeline"] if step["access"] == "passed"]
    assert len(looks) > 2
    only = {**findings[0], "timeline": looks, "fired": None}
    script = 'told.push(press("End"), place(), at("input[type=checkbox]").disabled)'
    assert browser.told(shown([only]), script) == [True, len(looks), True]


def test_the_heads_of_the_columns_stay_in_sight_and_nothing_is_wider_than_the_page(
    browser: Browser, findings: list[dict[str, Any]]
) -> None:
    told = browser.told(
        shown(findings[:1], f"explore {'a/long/path' * 30}"),
        """
        press("End");
        const head = at(".steps th").getBoundingClientRect();
        const row = at("tr.now").getBoundingClientRect();
        told.push(scrollY > 0, at(".bar").getBoundingClientRect().bottom <= head.top + 1);
        told.push(head.bottom <= row.top + 1, row.bottom <= innerHeight);
        document.body.style.width = "360px";
        told.push(document.querySelector("h1").scrollWidth <= 360);
        """,
    )
    assert told == [True] * 5

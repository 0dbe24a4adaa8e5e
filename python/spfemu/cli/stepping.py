"""Findings as a page that one steps through, in one file that needs nothing else."""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any

from spfemu.cli.timeline import new_value, short, step_text, tells

__all__ = ["page"]


def page(
    title: str, summary: str, findings: Sequence[dict[str, Any]], task_names: Sequence[str]
) -> str:
    """Returns the page of ``spfemu explore --html``.

    Source: ours. ``summary`` says how far the search went; each finding is a violation of the JSON
    form, with its ``replay`` command as a list of words. All steps are in the page's text: without
    a script it is still a table.
    """
    here = files("spfemu.cli")
    style, script = ((here / f"stepping.{kind}").read_text("utf-8") for kind in ("css", "js"))
    head = (
        f'<meta charset="utf-8"/><meta name="viewport" content="width=device-width"/>'
        f"<title>{html.escape(title)}</title><style>{style}</style>"
    )
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(summary)}</p>"]
    if len(findings) > 1:
        options = "".join(
            f'<option value="{nth}">{html.escape(_name(finding))}</option>'
            for nth, finding in enumerate(findings)
        )
        parts.append(f"<p><label>Finding <select>{options}</select></label></p>")
    parts += [_section(finding, task_names) for finding in findings]
    body = "\n".join([*parts, f"<script>{script}</script>"])
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def _name(finding: dict[str, Any]) -> str:
    entry = f" (known as {finding['entry']})" if finding["entry"] else ""
    return f"{finding['invariant']}{entry}: {finding['what']}"


def _section(finding: dict[str, Any], task_names: Sequence[str]) -> str:
    steps = finding["timeline"]
    about = f"""<section><h2>{html.escape(_name(finding))}</h2>
<p>{html.escape(finding["why"])}</p>
<p>Replay: <code>{html.escape(shlex.join(finding["replay"]))}</code></p>"""
    end = "" if finding["fired"] is not None else "<p>Seen once all tasks had ended.</p>"
    if not steps:
        nothing = "<p>There is nothing to step through: its timeline is empty.</p>"
        return f"{about}\n{end}{nothing}</section>"
    cpus = sorted({step["cpu"] for step in steps})
    names = {cpu: f"CPU {cpu} ({html.escape(task_names[cpu])})" for cpu in cpus}
    heads = "".join(f"<th>{names[cpu]}</th>" for cpu in cpus)
    columns = "<col/>" * (1 + len(cpus))
    rows = "\n".join(_rows(steps, cpus))
    at = "".join(
        f'<tr><td>{name} is in</td><td class="at" data-cpu="{cpu}"></td></tr>'
        for cpu, name in names.items()
    )
    return f"""{about}
<div class="bar"><button data-go="first" title="Home">|&lt;</button>
<button data-go="back" title="arrow left or up">&lt;</button>
<button data-go="next" title="arrow right or down">&gt;</button>
<button data-go="last" title="End">&gt;|</button>
<input type="range" min="0" value="0" aria-label="step"/><output></output>
<label><input type="checkbox" checked=""/> only what tells the story</label>
<span><kbd>&#8592;</kbd> <kbd>&#8594;</kbd> <kbd>Home</kbd> <kbd>End</kbd></span></div>
<div class="panes"><div class="steps"><table><colgroup>{columns}</colgroup>
<thead><tr><th>step</th>{heads}</tr></thead>
<tbody>{rows}</tbody></table>{end}</div>
<div class="side"><table>{at}</table>
<table class="state">
<thead><tr><th>word, once it is written</th><th>holds</th><th>by CPU</th></tr></thead>
<tbody></tbody></table><p class="none">No word was written yet.</p></div></div></section>"""


def _rows(steps: Sequence[dict[str, Any]], cpus: Sequence[int]) -> Iterator[str]:
    # Before this step, and before it where what does not tell the story is left out.
    before: list[tuple[int, str] | None] = [None, None]
    for number, (step, told) in enumerate(zip(steps, tells(steps), strict=True)):
        cpu, function = step["cpu"], step["function"]
        head = ""
        if function and before[told] != (cpu, function):
            head = f'<span class="function">{html.escape(function)}</span>'
        before = [(cpu, function), (cpu, function) if told else before[1]]
        text = f"{head}{html.escape(step_text(step))}"
        cell = f'<td class="does" data-cpu="CPU {cpu}">{text}</td>'
        cells = "".join(cell if cpu == column else "<td></td>" for column in cpus)
        data = f'data-n="{number}" data-cpu="{cpu}" data-function="{html.escape(function)}"'
        if "new" in step:
            data += f' data-value="{html.escape(new_value(step))}"'
            data += f' data-word="{html.escape(short(step["what"]))}"'
        kind = f"{step['access']}{'' if told else ' quiet'}"
        yield f'<tr class="{kind}" {data}><td class="n">{number}</td>{cells}</tr>'

"use strict";
// One stepper for each finding: the row that is now, and what the words hold that were written.
function stepper(finding) {
  const rows = [...finding.querySelectorAll(".steps tbody tr")];
  const slider = finding.querySelector("input[type=range]");
  const quiet = finding.querySelector("input[type=checkbox]");
  const panes = finding.querySelector(".panes");
  if (!rows.length) return null;
  if (rows.every((row) => row.classList.contains("quiet"))) {
    quiet.checked = false;
    quiet.disabled = true;
  }
  const shown = () => rows.filter((row) => !(quiet.checked && row.classList.contains("quiet")));
  let now = 0;

  function words() {
    const held = new Map();
    for (const row of rows.slice(0, now + 1)) {
      if (row.dataset.word) {
        held.set(row.dataset.word, [row.dataset.value, row.dataset.cpu, Number(row.dataset.n)]);
      }
    }
    const lines = [...held].sort((one, other) => other[1][2] - one[1][2]);
    const body = finding.querySelector(".state tbody");
    body.replaceChildren(...lines.map(([word, [value, cpu, n]]) => {
      const line = document.createElement("tr");
      line.className = n === now ? "new" : "";
      for (const text of [word, value, cpu]) {
        line.append(Object.assign(document.createElement("td"), { textContent: text }));
      }
      return line;
    }));
    finding.querySelector(".none").hidden = lines.length !== 0;
  }

  function show(n, scroll) {
    now = n;
    const last = new Map();
    for (const row of rows) {
      const step = Number(row.dataset.n);
      row.classList.toggle("now", step === now);
      row.classList.toggle("ahead", step > now);
      row.querySelector(".does").classList.remove("last");
      if (step <= now && !(quiet.checked && row.classList.contains("quiet"))) {
        last.set(row.dataset.cpu, row);
      }
    }
    for (const row of last.values()) row.querySelector(".does").classList.add("last");
    const steps = shown();
    const place = steps.indexOf(rows[now]);
    slider.max = steps.length - 1;
    slider.value = place;
    finding.querySelector("output").textContent =
      "step " + now + " (" + (place + 1) + " of " + steps.length + ")";
    for (const cell of finding.querySelectorAll(".at")) {
      const row = last.get(cell.dataset.cpu);
      cell.textContent = row ? row.dataset.function || "between two operations" : "not yet at work";
    }
    words();
    if (scroll) rows[now].scrollIntoView({ block: "nearest" });
  }

  function go(where) {
    const steps = shown();
    const last = steps.length - 1;
    const place = steps.indexOf(rows[now]);
    const to = { first: 0, last, back: place - 1, next: place + 1, back10: place - 10, next10: place + 10 };
    show(Number(steps[Math.min(Math.max(to[where], 0), last)].dataset.n), true);
  }

  for (const button of finding.querySelectorAll("button")) {
    button.addEventListener("click", () => go(button.dataset.go));
  }
  for (const row of rows) row.addEventListener("click", () => show(Number(row.dataset.n), false));
  slider.addEventListener("input", () => show(Number(shown()[slider.value].dataset.n), true));
  quiet.addEventListener("change", () => {
    panes.classList.toggle("told", quiet.checked);
    const steps = shown();
    show(Number((steps.find((row) => Number(row.dataset.n) >= now) || steps.at(-1)).dataset.n), true);
  });
  panes.classList.toggle("told", quiet.checked);
  // What stays in sight while the steps scroll, one below the other.
  const heights = new ResizeObserver(() => {
    for (const part of [".bar", ".steps thead"]) {
      const height = finding.querySelector(part).offsetHeight + "px";
      finding.style.setProperty(part === ".bar" ? "--bar" : "--head", height);
    }
  });
  heights.observe(finding.querySelector(".bar"));
  heights.observe(finding.querySelector(".steps thead"));
  show(Number(shown()[0].dataset.n), false);
  return go;
}

const findings = [...document.querySelectorAll("section")];
const steppers = findings.map(stepper);
const choice = document.querySelector("select");
let open = 0;

function choose(n) {
  open = n;
  findings.forEach((finding, nth) => { finding.hidden = nth !== n; });
}
if (choice) choice.addEventListener("change", () => choose(Number(choice.value)));
if (findings.length) choose(0);

const KEYS = {
  ArrowRight: "next", ArrowDown: "next", ArrowLeft: "back", ArrowUp: "back", Home: "first", End: "last",
};
// Elsewhere they scroll; a slider of its own would take up for forward.
const SLIDER_KEYS = { ...KEYS, PageUp: "back10", PageDown: "next10" };
// Up and down choose in a list.
const LIST_KEYS = { ArrowRight: "next", ArrowLeft: "back" };
document.addEventListener("keydown", (event) => {
  const at = (what) => event.target.closest && event.target.closest(what);
  const keys = at("select") ? LIST_KEYS : at("input[type=range]") ? SLIDER_KEYS : KEYS;
  const where = keys[event.key];
  if (!where || event.altKey || event.ctrlKey || event.metaKey || !steppers[open]) return;
  event.preventDefault();
  steppers[open](where);
});

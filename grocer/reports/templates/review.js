"use strict";
// Decisions are kept in the browser until the corrections file is saved and imported.
const queue = JSON.parse(document.getElementById("queue").textContent);
const key = "grocer-review-" + queue.id;
const who = document.getElementById("who");
const notice = document.getElementById("status");
const body = document.getElementById("rows");
const select = document.createElement("select");
let decisions = {}; // {label, when} by row
let current = 0;
let kept = true; // whether the browser keeps the decisions

function restore() {
  try {
    const saved = JSON.parse(localStorage.getItem(key) || "{}");
    decisions = saved.decisions || {};
    who.value = saved.who || "";
  } catch (error) {
    kept = false;
  }
}

function keep() {
  try {
    localStorage.setItem(key, JSON.stringify({ decisions, who: who.value }));
    kept = true;
  } catch (error) {
    kept = false;
  }
  count();
}

function say(text) {
  notice.textContent = text;
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function choiceButton(index, label, hint, share = "") {
  const button = document.createElement("button");
  button.type = "button";
  button.tabIndex = -1;
  button.dataset.label = label;
  button.append(element("bdi", label), share + " ", element("kbd", hint));
  // A second click removes the decision, as the key s does.
  button.addEventListener("click", () => {
    button.blur(); // or Space, which scrolls, clicks it again
    decide(index, decisions[index]?.label === label ? "" : label);
  });
  return button;
}

function addRow(item, index) {
  const row = document.createElement("tr");
  const name = element("th", "");
  name.append(element("bdi", item.name));
  name.scope = "row";
  const choices = element("td", "", "choices");
  item.alternatives.forEach(([label, probability], i) => {
    const share = " " + Math.round(100 * probability) + "\u00a0%";
    choices.append(choiceButton(index, label, String(i + 1), share));
  });
  row.append(name, element("td", item.previous || "none"), choices, element("td", item.source));
  row.append(element("td", item.purchases.toLocaleString("en"), "n"));
  row.addEventListener("click", () => move(index));
  body.append(row);
}

function show(index) {
  const row = body.rows[index];
  const decision = decisions[index];
  let shown = false;
  for (const button of row.querySelectorAll("button")) {
    const chosen = Boolean(decision) && button.dataset.label === decision.label;
    button.classList.toggle("chosen", chosen);
    button.setAttribute("aria-pressed", String(chosen));
    if (button.dataset.other && !chosen) button.remove();
    shown = shown || chosen;
  }
  if (decision && !shown) {
    const other = choiceButton(index, decision.label, "✓");
    other.dataset.other = "true";
    other.classList.add("chosen");
    other.setAttribute("aria-pressed", "true");
    row.cells[2].append(other);
  }
}

function count() {
  const done = Object.keys(decisions).length;
  const warning = ". This browser does not keep decisions: save before you close the page.";
  say(done + " of " + queue.rows.length + " products labelled" + (kept ? "" : warning));
}

function move(index) {
  if (!queue.rows.length) return;
  body.rows[current].removeAttribute("aria-current");
  current = Math.max(0, Math.min(queue.rows.length - 1, index));
  const row = body.rows[current];
  row.setAttribute("aria-current", "true");
  select.value = "";
  row.cells[2].append(select);
  row.scrollIntoView({ block: "nearest" });
}

function decide(index, label) {
  if (label) decisions[index] = { label, when: new Date().toISOString() };
  else delete decisions[index];
  show(index);
  keep();
  move(index + 1);
}

function cell(text) {
  const guarded = /^[=+\-@\t\r＝＋－＠]/.test(text) ? "'" + text : text;
  return '"' + guarded.replaceAll('"', '""') + '"';
}

function save() {
  if (!who.value.trim()) {
    say("Enter your name as the reviewer first.");
    who.focus();
    return;
  }
  const lines = ["\ufeffname,label,who,when,source,previous_label"];
  for (const [index, decision] of Object.entries(decisions)) {
    const item = queue.rows[index];
    const values = [item.name, decision.label, who.value.trim(), decision.when];
    lines.push([...values, item.source, item.previous].map(cell).join(","));
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  link.download = "corrections.csv";
  link.click();
  say(lines.length - 1 + " corrections saved to " + link.download);
}

function press(event) {
  const letter = event.key.toLowerCase(); // with Caps Lock, too
  if (event.ctrlKey || event.metaKey) {
    if (letter !== "s" || event.shiftKey) return;
    event.preventDefault();
    save();
    return;
  }
  if (event.altKey || event.target === who || event.target === select) return;
  if (event.key === "Enter" && event.target.id === "save") return;
  if (event.repeat && !event.key.startsWith("Arrow")) return; // one decision for each press
  const item = queue.rows[current];
  if (!item) return;
  const alternative = item.alternatives[Number(event.key) - 1];
  if (event.key === "Enter") decide(current, item.alternatives[0][0]);
  else if (alternative) decide(current, alternative[0]);
  else if (event.key === "0" && item.previous) decide(current, item.previous);
  else if (letter === "s") decide(current, "");
  else if (letter === "c") select.focus();
  else if (event.key === "ArrowDown") move(current + 1);
  else if (event.key === "ArrowUp") move(current - 1);
  else return;
  event.preventDefault();
}

select.setAttribute("aria-label", "Another label");
select.append(new Option("other …", ""), ...queue.labels.map((label) => new Option(label, label)));
// A browser reports each label that the arrow keys pass, so on the keyboard only Enter chooses.
let typed = false;
select.addEventListener("pointerdown", () => { typed = false; });
select.addEventListener("change", () => {
  if (!typed && select.value) decide(current, select.value);
});
select.addEventListener("keydown", (event) => {
  typed = true;
  if (event.key !== "Enter" && event.key !== "Escape") return;
  event.preventDefault();
  event.stopPropagation();
  const label = select.value;
  select.blur();
  if (event.key === "Enter" && label) decide(current, label);
});
who.addEventListener("input", keep);
window.addEventListener("storage", (event) => { // the page is open in two tabs
  if (event.key !== key) return;
  const before = decisions;
  restore();
  for (const index of Object.keys({ ...before, ...decisions })) {
    if (before[index]?.label !== decisions[index]?.label) show(index);
  }
  count();
});
document.getElementById("save").addEventListener("click", save);
document.addEventListener("keydown", press);
queue.rows.forEach(addRow);
restore();
for (const index of Object.keys(decisions)) show(index);
count();
move(Number(Object.keys(decisions).at(-1) ?? -1) + 1);

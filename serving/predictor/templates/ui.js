"use strict";
const form = document.querySelector("form"), said = document.querySelector("output");
const list = document.querySelector("ol"), field = document.querySelector("#name");

function row({ department, probability }) {
  const item = document.createElement("li"), bar = document.createElement("meter");
  const name = document.createElement("span"), share = document.createElement("span");
  name.textContent = department;
  share.textContent = (100 * probability).toFixed(1) + "\u00a0%";
  bar.value = probability;
  bar.setAttribute("aria-label", department);
  item.append(name, bar, share);
  return item;
}

async function ask(name) {
  said.textContent = "…";
  list.replaceChildren();
  try {
    const answer = await fetch("v1/models/MODEL:predict", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ instances: [name], parameters: { top_k: TOP_K } }),
    });
    const read = await answer.json();
    if (!answer.ok) throw new Error(read.error);
    const [prediction] = read.predictions;
    said.textContent = prediction.department;
    if (prediction.aisle) {
      const share = (100 * prediction.aisle_probability).toFixed(1);
      said.textContent += ` › ${prediction.aisle} (${share}\u00a0%)`;
    }
    list.replaceChildren(...prediction.alternatives.map(row));
  } catch (error) {
    said.textContent = error.message;
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask(field.value);
});
const linked = new URLSearchParams(location.search).get("name");
if (linked) {
  field.value = linked;
  ask(linked);
}

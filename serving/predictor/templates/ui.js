"use strict";
const form = document.querySelector("form"), output = document.querySelector("output");
const list = document.querySelector("ol"), field = document.querySelector("#name");

function row({ department, probability }) {
  const item = document.createElement("li"), bar = document.createElement("meter");
  const name = document.createElement("span"), percent = document.createElement("span");
  name.textContent = department;
  percent.textContent = (100 * probability).toFixed(1) + "\u00a0%";
  bar.value = probability;
  bar.setAttribute("aria-label", department);
  item.append(name, bar, percent);
  return item;
}

async function predict(name) {
  output.textContent = "…";
  list.replaceChildren();
  try {
    const response = await fetch("v1/models/MODEL:predict", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ instances: [name], parameters: { top_k: TOP_K } }),
    });
    const body = await response.json();
    if (!response.ok) throw new Error(body.error);
    const [prediction] = body.predictions;
    output.textContent = prediction.department;
    if (prediction.aisle) {
      const percent = (100 * prediction.aisle_probability).toFixed(1);
      output.textContent += ` › ${prediction.aisle} (${percent}\u00a0%)`;
    }
    list.replaceChildren(...prediction.alternatives.map(row));
  } catch (error) {
    output.textContent = error.message;
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  predict(field.value);
});
const linked = new URLSearchParams(location.search).get("name");
if (linked) {
  field.value = linked;
  predict(linked);
}

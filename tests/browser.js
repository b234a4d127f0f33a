// Measures `asked.pages` (HTML by name) in frames of `asked.widths`, in each of `asked.schemes`.
// A frame takes its width and its colour scheme from its element, so one Chromium measures all.
"use strict";
const brush = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const known = new Map();
function read(colour) {
  if (!known.has(colour)) known.set(colour, drawn(colour));
  return known.get(colour);
}
function drawn(colour) {
  brush.clearRect(0, 0, 1, 1);
  brush.fillStyle = colour;
  brush.fillRect(0, 0, 1, 1);
  return [...brush.getImageData(0, 0, 1, 1).data].map((part) => part / 255);
}
const over = ([r, g, b, a], below) => [r, g, b].map((part, i) => a * part + (1 - a) * below[i]);
function behind(element) {
  if (!element) return [1, 1, 1];
  const colour = read(getComputedStyle(element).backgroundColor);
  return colour[3] === 1 ? colour.slice(0, 3) : over(colour, behind(element.parentElement));
}
function luminance(colour) {
  const [r, g, b] = colour.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(colour, element) {
  const below = behind(element);
  const pair = [luminance(over(read(colour), below)), luminance(below)];
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}
function* texts(page) {
  const walker = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    yield [text, element.namespaceURI.endsWith("svg") ? style.fill : style.color, element];
  }
  for (const field of page.querySelectorAll("[placeholder]"))
    yield [field.placeholder, getComputedStyle(field, "::placeholder").color, field];
}
async function measure(name, html, width, scheme) {
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 800px; border: 0; color-scheme: ${scheme}`;
  frame.srcdoc = html;
  const loaded = new Promise((done) => (frame.onload = done));
  document.body.append(frame);
  await loaded;
  const page = frame.contentDocument, whole = page.scrollingElement;
  for (const part of page.querySelectorAll("details")) part.open = true;
  const scrolling = [...page.querySelectorAll("body *")].filter(
    (e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX === "auto");
  const found = {
    page: name, width, scheme,
    dark: frame.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches,
    wider: whole.scrollWidth - whole.clientWidth,
    faint: [...texts(page)].filter(([, colour, e]) => contrast(colour, e) < 4.5)
      .map(([text, colour, e]) => `${text} (${contrast(colour, e).toFixed(2)})`),
    unreachable: scrolling.filter((e) => e.tabIndex < 0).map((e) => e.outerHTML.slice(0, 200)),
    smallest: Math.min(...[...page.querySelectorAll("svg text")].map(
      (e) => parseFloat(getComputedStyle(e).fontSize) * Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b))),
  };
  frame.remove();
  return found;
}
(async () => {
  const found = [];
  for (const [name, html] of Object.entries(asked.pages))
    for (const width of asked.widths)
      for (const scheme of asked.schemes) found.push(await measure(name, html, width, scheme));
  document.querySelector("pre").textContent = JSON.stringify(found);
})();

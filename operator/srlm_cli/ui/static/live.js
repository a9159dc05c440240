// Takes the parts of the page that have changed from the server, and leaves what the person has opened, ticked or focused.
"use strict";

const connection = document.getElementById("connection");

function say(text) {
  connection.textContent = text;
  connection.hidden = !text;
}

function replace(id, html) {
  const part = document.getElementById(id);
  if (!part) return;
  const open = [...part.querySelectorAll("details[open][id]")].map((one) => one.id);
  const ticked = [...part.querySelectorAll("input:checked")].map((one) => one.id);
  const scrolled = [...part.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  const focused = part.contains(document.activeElement) ? path(part, document.activeElement) : null;
  part.innerHTML = html;
  for (const name of open) document.getElementById(name)?.setAttribute("open", "");
  for (const name of ticked) {
    const box = document.getElementById(name);
    if (box) box.checked = true;
  }
  part.querySelectorAll(".scroll").forEach((one, place) => (one.scrollLeft = scrolled[place] || 0));
  if (focused) follow(part, focused)?.focus({ preventScroll: true });
}

// Where an element stands among what can be focused: its place is the best that is known of it.
const FOCUSABLE = "a[href], button, input, summary, [tabindex]";

function path(part, element) {
  return [...part.querySelectorAll(FOCUSABLE)].indexOf(element);
}

function follow(part, place) {
  return part.querySelectorAll(FOCUSABLE)[place];
}

// While a button is held or a text is marked, what is under it stays.
const waiting = new Map();
let held = false;

function busy(id) {
  const marked = getSelection();
  return held || (!marked.isCollapsed && document.getElementById(id)?.contains(marked.anchorNode));
}

function flush() {
  for (const [id, html] of waiting) {
    if (busy(id)) continue;
    waiting.delete(id);
    replace(id, html);
  }
}

addEventListener("pointerdown", () => (held = true));
for (const name of ["pointerup", "pointercancel"])
  addEventListener(name, () =>
    setTimeout(() => {
      held = false;
      flush();
    })
  );

const events = new EventSource(document.body.dataset.events);
events.onopen = () => say("");
events.onerror = () => say("No connection to srlm ui: what stands here may be old.");
events.onmessage = (event) => {
  const part = JSON.parse(event.data);
  waiting.set(part.id, part.html);
  flush();
};

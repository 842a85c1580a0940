"use strict";
const page = document.querySelector("main");
const pairs = [...document.querySelectorAll(".pair")];
const told = document.querySelector("#status");
const progress = document.querySelector("progress");
const result = document.querySelector("#result");
const chosen = new Map();
let now = 0;

function show() {
  pairs.forEach((pair, index) => { pair.hidden = index !== now; });
  const done = now === pairs.length;
  document.querySelector("#choices").hidden = done;
  document.querySelector("#back").disabled = now === 0;
  result.disabled = chosen.size === 0;
  progress.value = now;
  told.textContent = done ? `All ${pairs.length} pairs are voted on. Download the votes.` : `Pair ${now + 1} of ${pairs.length}`;
  if (done) result.focus();
}

function choose(side) {
  if (now === pairs.length) return;
  chosen.set(Number(pairs[now].dataset.picture), side);
  now += 1;
  show();
}

function back() {
  if (now === 0) return;
  now -= 1;
  chosen.delete(Number(pairs[now].dataset.picture));
  show();
}

function download() {
  const votes = [...chosen].map(([picture, side]) => ({ picture, chosen: side }));
  const content = { schema_version: 1, images: page.dataset.images, version: page.dataset.version, votes };
  const address = URL.createObjectURL(new Blob([JSON.stringify(content, null, 2) + "\n"], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = `votes-${page.dataset.version.slice(0, 12)}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

const keys = { ArrowLeft: () => choose("left"), ArrowRight: () => choose("right"), ArrowDown: () => choose("none"), Backspace: back };
document.addEventListener("keydown", (event) => {
  const action = keys[event.key];
  if (!action || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  action();
});
document.querySelectorAll("[data-side]").forEach((button) => button.addEventListener("click", () => choose(button.dataset.side)));
document.querySelector("#back").addEventListener("click", back);
result.addEventListener("click", download);
show();

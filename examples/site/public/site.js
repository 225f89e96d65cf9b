"use strict";

const home = document.getElementById("home");
const guestbook = document.getElementById("guestbook");
const form = guestbook.querySelector("form");
const list = guestbook.querySelector("ol");

function add(entry) {
  const item = document.createElement("li");
  item.textContent = `${entry.text} (${new Date(entry.time * 1000).toLocaleString()})`;
  list.append(item);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = JSON.stringify({ text: form.elements.text.value });
  const answer = await fetch("/entries", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (answer.ok) {
    add(await answer.json());
    form.reset();
  }
});

if (location.pathname === "/guestbook") {
  home.hidden = true;
  guestbook.hidden = false;
  fetch("/entries").then((answer) => answer.json()).then((entries) => entries.forEach(add));
}

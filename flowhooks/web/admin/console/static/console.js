// Enhances the console's pages: times in the viewer's time zone, an overview that refreshes itself, short search
// addresses, buttons that copy, keyboard shortcuts, and actions that continue page by page.
// Every page works without this script. It fetches only pages of this server.
"use strict";

const two = (number) => String(number).padStart(2, "0");

const localText = (there) =>
  `${there.getFullYear()}-${two(there.getMonth() + 1)}-${two(there.getDate())} ` +
  `${two(there.getHours())}:${two(there.getMinutes())}:${two(there.getSeconds())}`;

const zoneName = () => Intl.DateTimeFormat().resolvedOptions().timeZone || "";

// A time that was understood is shown in both zones, so that nobody has to know the distance between them.
function understoodText(there) {
  const utc = `${there.toISOString().slice(0, 19).replace("T", " ")} UTC`;
  return ["", "UTC"].includes(zoneName()) ? utc : `${localText(there)} ${zoneName()} = ${utc}`;
}

function localTimes(within) {
  for (const one of within.querySelectorAll("time[datetime]")) {
    const there = new Date(one.dateTime);
    if (Number.isNaN(there.getTime())) continue;
    one.title = one.dateTime;
    const understood = one.closest(".understood");
    understood?.querySelector(".local")?.remove();
    one.textContent = understood ? understoodText(there) : localText(there);
  }
}

function zone() {
  for (const one of document.querySelectorAll(".zone")) {
    const label = one.dataset.local;
    const name = zoneName();
    one.textContent = `${label}${label.endsWith("：") ? "" : " "}${name}`.trim();
  }
}

function live(box) {
  const part = document.getElementById("live");
  const button = box.querySelector(".live-button");
  const room = box.querySelector(".live-room");
  const says = box.querySelector(".live-says");
  let paused = false;
  let asking = false;
  let pressed = false;

  // Whether new content would take the focus away from whoever reads by keyboard, or lose the click on a button.
  function focused() {
    const within = part.contains(document.activeElement);
    if (within) says.textContent = room.dataset.focused;
    return within;
  }

  // A page that answers a form has the address of that form, and a reload would send it again.
  function renew() {
    const page = box.querySelector(".live-reload");
    if (page.pathname === location.pathname) location.reload();
    else location.replace(page.href);
  }

  async function refresh() {
    if (paused || asking || pressed || document.hidden) return;
    if (focused()) return;
    asking = true;
    const request = new AbortController();
    const limit = setTimeout(() => request.abort(), 15000);
    try {
      const headers = { Accept: "text/html" };
      const answer = await fetch(box.dataset.live, { headers, credentials: "same-origin", signal: request.signal });
      if (answer.status === 401) return renew(); // the session has ended
      if (!answer.ok) return (says.textContent = room.dataset.failed.replace("{status}", answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (pressed || focused()) return; // since the request
      if (!paused) {
        // At its end, other parts of the page have changed, too, and it does not refresh itself any more.
        if (fresh.querySelector("[data-at-rest]")) return renew();
        const fields = [...part.querySelectorAll("input")];
        const entered = fields.filter((field) => field.value !== field.defaultValue || field.matches("[aria-invalid]"));
        part.replaceChildren(...fresh.body.childNodes);
        for (const field of entered) {
          const successor = document.getElementById(field.id);
          if (successor) successor.value = field.value;
        }
        localTimes(part);
      }
      says.textContent = "";
    } catch {
      says.textContent = room.dataset.lost;
    } finally {
      clearTimeout(limit);
      asking = false;
    }
  }

  button.hidden = false;
  box.querySelector(".live-reload").hidden = true;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? box.dataset.goOn : box.dataset.pause;
    if (!paused) refresh();
  });
  // New content may be longer, and what moves away between the press and the release of the mouse is not clicked.
  document.addEventListener("pointerdown", (event) => (pressed = event.button === 0));
  for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => (pressed = false));
  document.addEventListener("visibilitychange", refresh);
  part.addEventListener("focusout", () => setTimeout(refresh));
  setInterval(refresh, Number(box.dataset.every));
}

// Show times in the input fields in the viewer's time zone, and send the name of that zone with them.
function zoned(form) {
  const name = zoneName();
  if (!form.elements.zone || !name) return;
  form.elements.zone.value = name;
  for (const one of form.querySelectorAll("[data-instant]")) {
    one.value = localText(new Date(one.dataset.instant)).replace(" ", "T");
  }
  form.addEventListener("submit", () => {
    const times = ["since", "until", "attempted_since", "from", "to"].map((name) => form.elements[name]);
    form.elements.zone.disabled = !times.some((field) => field?.value);
  });
}

// Leave empty fields out of the address, so that it is short enough to read, keep and share. White space around a pasted
// value is removed; a value that a link brought may have it.
function shortAddress(form) {
  form.addEventListener("submit", () => {
    for (const one of form.elements) {
      if (one.matches("input") && one.value !== one.defaultValue) one.value = one.value.trim();
      if (one.name && !one.value) one.disabled = true;
    }
    // The browser has read the fields by then, and the page stays if the result is opened in another tab.
    setTimeout(() => {
      for (const one of form.elements) one.disabled = false;
    });
  });
}

// Continue a long action by itself, one request after the other. The pause lets the user read or leave the page.
function goOn(form) {
  const timer = setTimeout(() => form.requestSubmit(), 400);
  form.addEventListener("submit", () => clearTimeout(timer)); // also by the button that stops it
}

// Submit a form once, even if the user clicks twice: each form of the page, also one that a refresh brings. With a key
// held, browsers open the answer in another tab or window; the form can then be submitted again. So it can some seconds
// later, because the browser does not tell the page that the user has cancelled the request.
function once() {
  let inNewTab = false;
  addEventListener("click", (event) => (inNewTab = event.ctrlKey || event.metaKey || event.shiftKey), true);
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post" || inNewTab) return;
    // An action is stopped while the form that continues it is on its way.
    if (form.dataset.sent && event.submitter?.name !== "stop") event.preventDefault();
    form.dataset.sent = "yes";
    setTimeout(() => delete form.dataset.sent, 5000);
  });
  addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  });
}

// Copy a text to the clipboard. Browsers offer the clipboard only over TLS and to this machine itself; elsewhere the
// text is copied from a field that is selected.
async function toClipboard(text) {
  if (navigator.clipboard && isSecureContext) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  if (!copied) throw new Error("not copied");
}

// Buttons that copy an id, or the body as it was received.
function copies(button) {
  const name = button.firstChild;
  const text = name.data;
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      if (button.dataset.copyUrl) {
        const answer = await fetch(button.dataset.copyUrl, { credentials: "same-origin" });
        if (!answer.ok) throw new Error(String(answer.status));
        await toClipboard(await answer.text());
      } else {
        await toClipboard(decodeURIComponent(button.dataset.copy));
      }
      name.data = button.dataset.copied;
    } catch {
      name.data = "✗";
    }
    button.focus();
    setTimeout(() => (name.data = text), 2000);
  });
}

// Move the focus from row to row of the list.
function moveRow(step) {
  const rows = [...document.querySelectorAll("main tbody tr")];
  const links = rows.map((row) => row.querySelector("a[href]")).filter(Boolean);
  const at = links.findIndex((link) => link.closest("tr").contains(document.activeElement));
  const next = links[at < 0 ? (step > 0 ? 0 : links.length - 1) : at + step];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

const KEYS = {
  "/": () => {
    document.getElementById("find").focus();
    document.getElementById("find").select();
  },
  j: () => moveRow(1),
  k: () => moveRow(-1),
  n: () => document.querySelector('a[rel="next"]')?.click(),
  p: () => document.querySelector('a[rel="prev"]')?.click(),
  "?": () => document.getElementById("keys").showModal(),
};

// Keys that do something without a modifier. They can be turned off, because speech input may type them unasked.
function shortcuts(dialog) {
  const use = document.getElementById("use-keys");
  const show = document.getElementById("show-keys");
  const stored = "flowhooks_keys";
  try {
    use.checked = localStorage.getItem(stored) !== "off";
    use.addEventListener("change", () => localStorage.setItem(stored, use.checked ? "on" : "off"));
  } catch {
    // The browser stores nothing: the choice then holds for this page.
  }
  show.hidden = false;
  show.addEventListener("click", KEYS["?"]);
  document.addEventListener("keydown", (event) => {
    const typed = event.target.closest?.("input:not([type=checkbox]), select, textarea");
    if (typed || dialog.open || !use.checked || event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    if (!Object.hasOwn(KEYS, event.key)) return;
    event.preventDefault();
    KEYS[event.key]();
  });
}

// Show the time over which the user drags the mouse on a chart.
function selectable(plot) {
  const chart = plot.querySelector("svg");
  const [since, until] = [Number(plot.dataset.since), Number(plot.dataset.until)];
  let from = null;
  let box = null;

  const position = (event) => {
    const frame = chart.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - frame.left) / frame.width));
  };
  const time = (share) => new Date(Math.round((since + share * (until - since)) / 60000) * 60000).toISOString();

  function finish() {
    box?.remove();
    [from, box] = [null, null];
  }

  chart.classList.add("selectable");
  chart.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    from = position(event);
    box = document.createElement("div");
    box.className = "selection";
    plot.append(box);
    chart.setPointerCapture(event.pointerId);
  });
  chart.addEventListener("pointermove", (event) => {
    if (from === null) return;
    const to = position(event);
    box.style.left = `${100 * Math.min(from, to)}%`;
    box.style.width = `${100 * Math.abs(to - from)}%`;
  });
  chart.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const [low, high] = [from, position(event)].sort((one, other) => one - other);
    finish();
    const [start, end] = [time(low), time(high)];
    // A click, and a drag over less than a hundredth of the chart, selects nothing.
    if (high - low >= 0.01 && start < end) location.search = new URLSearchParams({ from: start, to: end });
  });
  chart.addEventListener("pointercancel", finish);
}

// Show the values of the step below the mouse, from the row of the step in the table. Steps without values have no row.
function readable(charts) {
  const section = charts.closest("section");
  const [hint, step] = [section.querySelector(".drag"), Number(charts.dataset.step)];
  const rows = new Map();
  for (const row of section.querySelectorAll(".steps tbody tr")) {
    rows.set(new Date(row.querySelector("time").dateTime).getTime(), row);
  }
  const text = hint.textContent;
  hint.hidden = false;
  charts.addEventListener("pointermove", (event) => {
    const plot = event.target.closest(".plot");
    if (!plot) return;
    const frame = plot.querySelector("svg").getBoundingClientRect();
    const [since, until] = [Number(plot.dataset.since), Number(plot.dataset.until)];
    const number = Math.floor(((event.clientX - frame.left) / frame.width) * ((until - since) / step));
    const row = rows.get(since + number * step);
    hint.textContent = row
      ? [...row.cells].map((cell) => `${cell.dataset.label} ${cell.textContent}`).join(" · ")
      : text;
  });
  charts.addEventListener("pointerleave", () => (hint.textContent = text));
}

localTimes(document);
zone();
once();
document.querySelectorAll("#keys").forEach(shortcuts);
document.querySelectorAll(".plot[data-since]").forEach(selectable);
document.querySelectorAll("[data-step]").forEach(readable);
document.querySelectorAll("button.copy").forEach(copies);
document.querySelectorAll("[data-live]").forEach(live);
document.querySelectorAll("form[method=get]").forEach(zoned);
document.querySelectorAll("form[method=get]").forEach(shortAddress);
document.querySelectorAll("form[data-go-on]").forEach(goOn);

// What makes the pages livelier; all of them work without it, but for uploading.
"use strict";
const root = document.documentElement;
const find = (selector, within = document) => within.querySelector(selector);

// Theme: light, dark, or what the system says.
const themeButton = find("#theme");
if (themeButton) {
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const show = () => { themeButton.textContent = dark() ? "Light" : "Dark"; themeButton.setAttribute("aria-label", `Switch to the ${dark() ? "light" : "dark"} theme`); };
  themeButton.hidden = false;
  show();
  themeButton.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not kept, but switched */ }
    show();
  });
}

// A picture that cannot be had gives way to the name of its modality.
document.addEventListener("error", (event) => {
  const image = event.target;
  if (!(image instanceof HTMLImageElement) || image.dataset.fallback === undefined) return;
  const instead = document.createElement("span");
  instead.className = "nopicture";
  instead.textContent = image.dataset.fallback || "–";
  instead.setAttribute("aria-hidden", "true");
  image.replaceWith(instead);
}, true);

// Parts marked data-live are fetched again and swapped, if they changed; the focus stays where it was.
async function swap(selector, address) {
  const answer = await fetch(address, { headers: { Accept: "text/html" } });
  if (answer.redirected && new URL(answer.url).pathname === "/sign-in") { location.href = "/sign-in"; return; }
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const before = find(selector), after = find(selector, fresh);
  const counts = [find("header nav"), find("header nav", fresh)];
  if (counts[0] && counts[1] && counts[0].innerHTML !== counts[1].innerHTML) counts[0].innerHTML = counts[1].innerHTML;
  if (!before || !after || before.dataset.was === after.innerHTML) return;
  const focused = before.contains(document.activeElement) ? document.activeElement.id : "";
  const loaded = new Map([...before.querySelectorAll("img")].map((image) => [image.getAttribute("src"), image]));
  const markup = after.innerHTML;
  for (const image of after.querySelectorAll("img")) {
    const same = loaded.get(image.getAttribute("src"));
    if (same) image.replaceWith(same);
  }
  before.replaceChildren(...after.childNodes);
  before.dataset.was = markup;
  if (focused) document.getElementById(focused)?.focus();
}
for (const part of document.querySelectorAll("[data-live]")) {
  setInterval(() => { if (!document.hidden) swap(`#${part.id}`, location.href).catch(() => {}); }, Number(part.dataset.live));
}

// Search while typing.
for (const form of document.querySelectorAll("form[data-live-search]")) {
  let waiting = 0;
  const search = () => {
    const asked = [...new FormData(form)].filter(([, value]) => value !== "");
    const address = `${location.pathname}${asked.length ? `?${new URLSearchParams(asked)}` : ""}`;
    history.replaceState(null, "", address);
    swap(form.dataset.liveSearch, address).catch(() => {});
  };
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 200); });
  form.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(waiting); search(); });
}

// Scrolling through the images of a series: the newest wish wins, neighbours are fetched ahead.
const frame = find("#frame");
if (frame) {
  const { base, positions } = JSON.parse(find("#positions").textContent);
  const slider = find("#image"), place = find("#place"), choice = find("#window");
  const address = (number) => `${base}${positions[number - 1]}/rendered?accept=image/png${choice?.value ? `&window=${encodeURIComponent(choice.value)}` : ""}`;
  let busy = false, wanted = 0;
  const show = async () => {
    wanted = Number(slider.value);
    place.textContent = `${wanted} / ${positions.length}`;
    if (busy) return;
    busy = true;
    while (wanted) {
      const number = wanted;
      wanted = 0;
      const next = new Image();
      next.src = address(number);
      try { await next.decode(); frame.src = next.src; frame.alt = `Image ${number} of ${positions.length}`; } catch { /* keep the last one */ }
    }
    busy = false;
    const here = Number(slider.value);
    for (const near of [here + 1, here - 1]) if (near >= 1 && near <= positions.length) new Image().src = address(near);
  };
  const step = (by) => { slider.value = Number(slider.value) + by; show(); };
  slider.addEventListener("input", show);
  choice?.addEventListener("change", show);
  find("#scroll").addEventListener("submit", (event) => event.preventDefault());
  frame.parentElement.addEventListener("wheel", (event) => { if (event.deltaY) { event.preventDefault(); step(Math.sign(event.deltaY)); } }, { passive: false });
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, textarea, button, a")) return;
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (by) { event.preventDefault(); step(by); }
  });
}

// Upload by STOW-RS, in batches; the browser streams the files from disk.
const BATCH_BYTES = 16e6, BATCH_FILES = 100;
async function walk(entry, files) {
  if (entry.isFile) { files.push(await new Promise((done, failed) => entry.file(done, failed))); return; }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return;
    for (const one of some) await walk(one, files);
  }
}
const count = (answer, tag) => answer[tag]?.Value?.length ?? 0;
const REASONS = { 0xa700: "no room, try again later", 0xa900: "does not match its SOP class or study", 0xc000: "not understood as DICOM", 0xc002: "kept in quarantine", 0x0122: "SOP class not supported" };
async function send(batch, state) {
  const boundary = `mp${crypto.getRandomValues(new Uint32Array(4)).join("")}`;
  const parts = batch.flatMap((file) => [`\r\n--${boundary}\r\nContent-Type: application/dicom\r\n\r\n`, file]);
  const answer = await fetch("/dicom-web/studies", {
    method: "POST", body: new Blob([...parts, `\r\n--${boundary}--\r\n`]),
    headers: { "Content-Type": `multipart/related; type="application/dicom"; boundary=${boundary}`, Accept: "application/dicom+json" },
  });
  let body = {};
  try { body = await answer.json(); } catch { /* no body: all of the batch failed */ }
  const stored = count(body, "00081199");
  state.stored += stored;
  state.refused += batch.length - stored;
  for (const failure of [...(body["00081198"]?.Value ?? []), ...(body["0008119A"]?.Value ?? [])]) {
    const code = failure["00081197"]?.Value?.[0];
    const reason = REASONS[code] ?? `code ${code?.toString(16)}`;
    state.reasons.set(reason, (state.reasons.get(reason) ?? 0) + 1);
  }
  if (body.error) state.reasons.set(body.error, (state.reasons.get(body.error) ?? 0) + batch.length);
}
async function upload(files) {
  if (!files.length) return;
  if (!find("#report")) { location.href = "/upload"; return; }
  const state = { stored: 0, refused: 0, reasons: new Map() };
  const total = files.reduce((sum, file) => sum + file.size, 0) || 1;
  let sent = 0;
  find("#report").hidden = false;
  const tell = (end) => {
    find("#bar").value = sent / total;
    find("#said").textContent = `${end ? "Done: " : ""}${state.stored} stored, ${state.refused} not stored, of ${files.length}`;
    find("#refused").replaceChildren(...[...state.reasons].map(([reason, times]) => Object.assign(document.createElement("li"), { textContent: `${times} × ${reason}` })));
  };
  for (let at = 0; at < files.length;) {
    const batch = [];
    let size = 0;
    while (at < files.length && batch.length < BATCH_FILES && (!batch.length || size + files[at].size < BATCH_BYTES)) { size += files[at].size; batch.push(files[at++]); }
    try { await send(batch, state); } catch { state.refused += batch.length; state.reasons.set("the connection broke", batch.length); }
    sent += size;
    tell(false);
  }
  sent = total;
  tell(true);
}
document.addEventListener("change", (event) => { if (event.target.matches("#files, #folder")) upload([...event.target.files]); });
document.addEventListener("dragover", (event) => { if (event.dataTransfer.types.includes("Files")) { event.preventDefault(); document.body.classList.add("dragging"); } });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
document.addEventListener("drop", async (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  document.body.classList.remove("dragging");
  const files = [], entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  for (const entry of entries) await walk(entry, files);
  upload(files);
});

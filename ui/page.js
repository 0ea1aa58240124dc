// Runs once for every HTML component of the page: `element` is it, `trigger` sends a Gradio event.
// Clicks are delegated, so that what the server writes later needs no listeners of its own.
// Nothing here makes HTML out of text.

const read = (node, name) => node.getAttribute("data-" + name);

// Choices are sent at once and may come in any order: the server goes by their numbers.
const numbered = () => (window.yomuChoices = (window.yomuChoices ?? 0) + 1);

function send(node) {
  const data = { number: numbered() };
  for (const name of ["document", "page", "query", "text"]) {
    const value = read(node, name);
    if (value !== null) data[name] = value;
  }
  trigger(read(node, "event"), data);
}

// Removing asks once more, on the button itself: a dialog would hide what is to be removed.
// The second click of a double one is no answer: nobody has read the question by then.
const READ_MS = 600;
const asked = new WeakMap(); // button -> when it asked
function confirmed(node) {
  const question = read(node, "confirm");
  if (question === null) return true;
  if (node.classList.contains("is-asking")) return Date.now() - asked.get(node) > READ_MS;
  const before = node.textContent, label = node.getAttribute("aria-label");
  asked.set(node, Date.now());
  node.classList.add("is-asking");
  node.textContent = question;
  if (label) node.setAttribute("aria-label", label.replace(before, question)); // is read instead
  const calm = () => {
    clearTimeout(timer); // of this asking, or it would end the next one
    node.classList.remove("is-asking");
    if (node.textContent === question) node.textContent = before;
    if (label) node.setAttribute("aria-label", label);
  };
  node.addEventListener("blur", calm, { once: true });
  const timer = setTimeout(calm, 6000);
  return false;
}

const labels = new WeakMap(); // button -> its text before it said "Copied"
async function copy(node) {
  const before = labels.get(node) ?? node.textContent;
  labels.set(node, before);
  try {
    await navigator.clipboard.writeText(read(node, "copy"));
  } catch {
    const field = document.createElement("textarea"); // no clipboard without https or permission
    field.value = read(node, "copy");
    element.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  node.textContent = read(node, "done");
  setTimeout(() => { node.textContent = before; labels.delete(node); }, 1500);
}

function save(node) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([read(node, "save")], { type: "text/plain" }));
  link.download = read(node, "name");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function show(node) {
  const wanted = read(node, "show");
  for (const each of element.querySelectorAll("[data-show]"))
    each.setAttribute("aria-pressed", String(each === node));
  for (const each of element.querySelectorAll("[data-layer]"))
    each.classList.toggle("is-off", read(each, "layer") !== wanted);
}

function zoom(node) {
  const sheet = element.querySelector(".yomu-sheet");
  if (!sheet) return;
  const now = parseFloat(sheet.style.getPropertyValue("--zoom") || "1");
  const step = read(node, "zoom");
  const next = step === "fit" ? 1 : step === "in" ? now * 1.3 : now / 1.3;
  sheet.style.setProperty("--zoom", String(Math.min(6, Math.max(0.4, next))));
}

function mark(document_, page) {
  for (const each of document.querySelectorAll(".yomu-card"))
    if (read(each, "document") === document_ && read(each, "page") === page)
      each.setAttribute("aria-current", "true");
    else each.removeAttribute("aria-current");
}

// The page that is open, or where it will be, on the tab that is seen.
const viewer = (root) =>
  [...root.querySelectorAll(".yomu-viewer")].find((each) => each.offsetParent !== null);

// On a phone the page is far below what was tapped: without this a tap seems to do nothing.
function reveal(node) {
  const page = node.querySelector(".yomu-scroll") || node; // below its tools
  const seen = window.innerHeight - page.getBoundingClientRect().top;
  if (node.getBoundingClientRect().top >= 0 && seen > 0.2 * window.innerHeight) return;
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  node.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
}

// Scrolls at once, and once more when the page has come: until then there may be no room for it.
function follow() {
  const now = viewer(document);
  if (now && element.contains(now)) return;
  document.documentElement.dataset.chosen = "";
  if (now) reveal(now);
}

element.addEventListener("click", (event) => {
  const node = event.target.closest("button");
  if (!node || !element.contains(node) || node.disabled) return;
  if (node.hasAttribute("data-copy")) copy(node);
  else if (node.hasAttribute("data-save")) save(node);
  else if (node.hasAttribute("data-show")) show(node);
  else if (node.hasAttribute("data-zoom")) zoom(node);
  else if (node.hasAttribute("data-event") && confirmed(node)) {
    send(node);
    if (node.hasAttribute("data-forget")) forget();
    if (!node.hasAttribute("data-page")) return;
    mark(read(node, "document"), read(node, "page"));
    follow();
  }
});

// Left and right turn pages where the page itself has the focus.
element.addEventListener("keydown", (event) => {
  if (!event.target.classList.contains("yomu-scroll")) return;
  const at = { PageUp: 0, PageDown: 1 }[event.key];
  if (at === undefined) return;
  const turn = element.querySelectorAll(".yomu-bar [data-event]")[at];
  if (turn && !turn.disabled) { event.preventDefault(); send(turn); }
});

// What is written anew loses the focus; whoever turns pages by keys wants it back where it was.
let kept = null;
element.addEventListener("focusin", (event) => {
  const name = event.target.getAttribute("aria-label");
  if (event.target.classList.contains("yomu-scroll")) kept = ".yomu-scroll";
  else kept = name && `[aria-label="${CSS.escape(name)}"]`;
});
for (const kind of ["focusin", "pointerdown"])
  document.addEventListener(kind, (event) => { if (!element.contains(event.target)) kept = null; });

function refocus() {
  if (!kept || document.activeElement !== document.body) return;
  const node = element.querySelector(kept);
  const able = node && !node.disabled ? node : element.querySelector(".yomu-scroll");
  if (able) able.focus({ preventScroll: true });
}

// A node that is made into another keeps the focus until the next frame.
new MutationObserver(() => setTimeout(refocus, 60))
  .observe(element, { childList: true, subtree: true, attributes: true });

// What was asked in this tab is shown again after a reload. It ends with the tab, or when cleared.
const VISIT = "yomu-visit", ASKED = "yomu-asked", USER = "yomu-user";

function stored(key) {
  try { return JSON.parse(sessionStorage.getItem(key)); } catch { return null; }
}

function store(key, value) {
  try {
    if (value === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, JSON.stringify(value));
  } catch { /* full, or forbidden: it is not kept */ }
}

function keep() {
  const empty = element.querySelector("[data-empty]");
  if (empty) return again(read(empty, "empty"));
  const text = element.querySelector(".yomu-answer > .yomu-text");
  if (!text) return;
  store(ASKED, read(text, "asked"));
  const turn = read(text, "turn"), turns = stored(VISIT) ?? [];
  if (turn !== null && turns.at(-1) !== turn) store(VISIT, [...turns, turn].slice(-MOST_TURNS));
}

// Who logs in where another user's tab was sees nothing of what that one asked.
function again(user) {
  if ((stored(USER) ?? "") !== user) for (const each of [VISIT, ASKED]) store(each, null);
  store(USER, user || null);
  const turns = stored(VISIT) ?? [], asked = stored(ASKED);
  if (turns.length || asked) trigger("input", { turns, asked });
}

function forget() {
  store(VISIT, null);
  store(ASKED, null);
  document.querySelector("#question :is(textarea, input)").focus();
}

function settle() {
  const head = element.querySelector("[data-lang]");
  if (head) document.documentElement.lang = read(head, "lang");
  frame();
  keep();
  const sheet = viewer(element);
  if (sheet && "chosen" in document.documentElement.dataset) {
    delete document.documentElement.dataset.chosen;
    reveal(sheet);
  }
  const first = element.querySelector("[data-first]");
  const wanted = first && read(first, "first");
  if (!wanted) { delete element.dataset.opened; return; }
  // The same question again: what came between may have gone by unseen, but no page is open.
  const isOpen = document.querySelector("#viewer .yomu-bar") !== null;
  if (wanted === element.dataset.opened && isOpen) return;
  element.dataset.opened = wanted;
  delete document.documentElement.dataset.chosen; // nobody chose this one
  const [document_, page, ...query] = wanted.split("\n");
  mark(document_, page);
  trigger("select", { document: document_, page, query: query.join("\n"), number: numbered() });
}

// The answer is there: its first page is opened, or the one that somebody chose before, if it was
// read from, gets its words framed.
function frame() {
  const done = element.querySelector("[data-finished]");
  const name = done ? read(done, "finished") : "";
  if (name === (element.dataset.finished || "")) return;
  element.dataset.finished = name;
  const open = document.querySelector("#evidence .yomu-card[aria-current]");
  if (!name || !open) return;
  const cited = [...element.querySelectorAll(".yomu-cite")];
  const isOpen = (each) => ["document", "page"].every((part) => read(each, part) === read(open, part));
  const isChosen = open !== document.querySelector("#evidence .yomu-card"); // that opens by itself
  const next = isChosen ? cited.find(isOpen) : cited[0];
  if (!next) return;
  mark(read(next, "document"), read(next, "page"));
  send(next);
}

watch("value", () => requestAnimationFrame(settle));
settle();

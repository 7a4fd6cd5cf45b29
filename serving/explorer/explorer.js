"use strict";
const $ = (id) => document.getElementById(id);
const STRATEGIES = ["hybrid", "collaborative", "content", "session", "similar", "bought_together", "trending", "popular", "buy_again", "new"];
const FIELDS = ["user", "placement", "strategy", "count", "add", "where", "diversity", "based_on", "book"];

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

async function call(path, options = {}) {
  const key = $("key").value;
  const headers = { ...(key ? { "X-API-Key": key } : {}), ...options.headers };
  const answer = await fetch(path, { ...options, headers });
  if (!answer.ok) throw new Error(wrong(await answer.json()));
  return options.text ? { text: await answer.text(), tag: answer.headers.get("ETag") } : answer.json();
}
const post = (path, value) => call(path, { method: "POST", body: JSON.stringify(value), headers: { "Content-Type": "application/json" } });

// Of a book all errors come at once.
function wrong({ error, errors }) {
  if (!errors) return `${error.field ? error.field + ": " : ""}${error.message}`;
  return errors.map((one) => [one.line ? `line ${one.line}` : "", one.rule, one.field].filter(Boolean).join(", ") + ": " + one.message).join("\n");
}

function request() {
  const asked = { count: Number($("count").value), explain: true };
  for (const name of ["user", "placement", "strategy"]) if ($(name).value) asked[name] = $(name).value;
  return asked;
}

function changed(asked) {
  const other = { ...asked };
  if ($("add").value) other.items = [$("add").value];
  if ($("where").value) other.filters = { where: $("where").value };
  if (Number($("diversity").value) > 0) other.diversity = Number($("diversity").value);
  return other;
}

function bars(list, entries, most = Math.max(...entries.map((entry) => entry.value), 1e-9)) {
  list.replaceChildren(...entries.map((entry) => {
    const row = element("li");
    if (entry.item) row.append(itemLink(entry.item, entry.label)); else row.append(element("span", entry.label));
    const bar = element("div", undefined, { class: "bar", title: entry.shown });
    const fill = element("i");
    fill.style.width = `${Math.max(2, 100 * entry.value / most)}%`;
    bar.append(fill);
    row.append(bar);
    return row;
  }));
  return list;
}

function itemLink(item, title) {
  const link = element("button", title, { class: "link", type: "button" });
  link.addEventListener("click", () => showItem(item).catch(say));
  return link;
}

function showAnswer(which, answer, other) {
  const place = new Map((other ? other.items : []).map((one, n) => [one.item, n + 1]));
  $(which).replaceChildren(...answer.items.map((one, n) => {
    const row = element("li");
    row.append(itemLink(one.item, one.title), element("div", `${one.reason.text} (${one.reason.code})`, { class: "soft" }));
    row.append(element("div", `${one.source} · score ${one.score.toPrecision(3)}`, { class: "soft" }));
    if (one.rules.length) row.append(element("div", `rules: ${one.rules.join(", ")}`, { class: "moved" }));
    if (other) {
      const before = place.get(one.item);
      if (before === undefined) row.append(element("div", "new in the list", { class: "moved" }));
      else if (before !== n + 1) row.append(element("div", `was at ${before}`, { class: "moved" }));
    }
    if (one.contributions.length)
      row.append(bars(element("ul", undefined, { class: "bars", "aria-label": "What the score is due to" }),
        one.contributions.slice(0, 4).map((part) => ({
          label: `${part.kind} ${part.title}`, value: part.share, shown: `${Math.round(100 * part.share)} %`,
        })), 1));
    return row;
  }));
  $(`${which}_note`).textContent = `${answer.fallback}, ${answer.strategy}, ${answer.milliseconds} ms`;
  $(`${which}_rules`).replaceChildren(...answer.rules.map((trace) =>
    element("li", `${trace.rule} (${trace.action}): ${trace.effect}: ${trace.items.join(", ") || "nothing"}`)));
}

let shows = 0;

// The lists of the last form that was sent; answers to earlier ones come too late.
async function show() {
  const turn = ++shows;
  $("ask").setAttribute("aria-busy", "true");
  try {
    say("");
    remember();
    const asked = request();
    const before = await post("/v1/recommend", asked);
    const other = changed(asked);
    const after = $("book").value.trim()
      ? (await post("/v1/rules/preview", { book: await readBook(), request: other })).after
      : await post("/v1/recommend", other);
    if (turn !== shows) return;
    showAnswer("before", before);
    showAnswer("after", after, before);
    if (asked.user) await showUser(asked.user);
  } finally {
    if (turn === shows) $("ask").setAttribute("aria-busy", "false");
  }
}

async function showUser(user) {
  const found = await call(`/v1/users/${encodeURIComponent(user)}`);
  $("likes").textContent = found.n_events
    ? `${found.n_events} events; likes ${found.likes.join(", ") || "nothing in particular yet"}` : "no events yet";
  $("history").replaceChildren(...found.events.map((event) => {
    const card = element("li");
    if (/^(https?:|data:image\/)/.test(event.image_url)) card.append(element("img", undefined, { src: event.image_url, alt: "", loading: "lazy" }));
    card.append(event.item ? itemLink(event.item, event.title) : element("span", event.title));
    card.append(element("div", `${event.kind}, ${new Date(event.ts_ms).toLocaleString()}`, { class: "soft" }));
    return card;
  }));
}

class Chart {
  constructor(id, labels) {
    this.box = $(id);
    this.data = [[], ...labels.map(() => [])];
    const ink = getComputedStyle(document.body).color;
    const axis = { stroke: ink, grid: { width: 0.3 } };
    this.plot = new uPlot({
      width: this.width(), height: 130, axes: [axis, axis],
      series: [{}, ...labels.map((label, n) => ({ label, stroke: ["#0b63c5", "#d1781f"][n], width: 2 }))],
    }, this.data, this.box);
    addEventListener("resize", () => this.plot.setSize({ width: this.width(), height: 130 }));
  }
  width() { return Math.max(280, Math.min(this.box.clientWidth || 280, 900)); }
  add(values) {
    this.data[0].push(Date.now() / 1000);
    values.forEach((value, n) => this.data[n + 1].push(value));
    this.data.forEach((column) => { if (column.length > 300) column.shift(); });
    this.plot.setData(this.data);
  }
}

let itemChart, shownItem;
async function showItem(item, scroll = true) {
  const found = await call(`/v1/items/${encodeURIComponent(item)}`);
  $("item_page").hidden = false;
  if (shownItem !== item) { $("item_chart").replaceChildren(); itemChart = new Chart("item_chart", ["short half-life", "long half-life"]); }
  shownItem = item;
  itemChart.add([found.popularity_short, found.popularity_long]);
  $("item_title").textContent = found.title;
  $("item_facts").textContent = [
    found.item, found.category, found.brand, found.price === null ? "" : `price ${found.price}`,
    found.stock === null ? "" : `stock ${found.stock}`, `${found.views} views`, `${found.purchases} purchases`,
    found.trending ? "trending" : "", found.gone ? "gone" : "",
  ].filter(Boolean).join(" · ");
  bars($("neighbours"), found.neighbours.map((near) => ({ item: near.item, label: near.title, value: near.weight, shown: String(near.weight) })));
  if (scroll) $("item_page").scrollIntoView({ behavior: "smooth" });
}

let last, liveChart;
async function look() {
  const now = await call("/v1/live");
  if (last) {
    const seconds = (now.at_ms - last.at_ms) / 1000;
    const rates = [(now.events - last.events) / seconds, (now.answers - last.answers) / seconds];
    $("events_s").textContent = rates[0].toFixed(1);
    $("answers_s").textContent = rates[1].toFixed(1);
    liveChart = liveChart || new Chart("live_chart", ["events/s", "answers/s"]);
    liveChart.add(rates);
  }
  last = now;
  $("age").textContent = now.newest_event_age_s === null ? "none" : `${now.newest_event_age_s.toFixed(1)} s ago`;
  const personal = (now.fallbacks.personalised || 0) + (now.fallbacks.session || 0);
  $("fallbacks").textContent = now.answers ? `${(100 * (1 - personal / now.answers)).toFixed(1)} %` : "–";
  $("n_items").textContent = now.items.toLocaleString();
  $("generation").textContent = now.generation + (now.without_store ? " (Redis is away)" : "");
  $("anchor").textContent = now.anchor || "none";
  $("rules_version").textContent = now.rules_version || "none";
  if (shownItem) await showItem(shownItem, false);
}

const say = (what) => { $("message").textContent = what instanceof Error ? what.message : what; };
const kept = (name) => $(name).value && !((name === "book" || name === "based_on") && $("book").value === liveBook.text);
const remember = () => history.replaceState(null, "", "#" + new URLSearchParams(FIELDS.filter(kept).map((name) => [name, $(name).value])));

async function start() {
  for (const name of STRATEGIES) $("strategy").append(element("option", name));
  const places = Object.keys((await call("/v1/rules")).all_placements);
  for (const name of ["", ...places]) $("placement").append(element("option", name || "none", { value: name }));
  const { users } = await call("/v1/users");
  $("users").replaceChildren(...users.map((user) => element("option", undefined, { value: user })));
  await loadBook();
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) if (FIELDS.includes(name) && $(name)) $(name).value = value;
  showState();
  if (!$("user").value && users.length) $("user").value = users[0];
  await show();
}

$("ask").addEventListener("submit", (event) => { event.preventDefault(); show().catch(say); });
$("diversity").addEventListener("input", () => { $("diversity_value").textContent = $("diversity").value; });
addEventListener("DOMContentLoaded", () => {
  start().catch(say);
  look().catch(say);
  setInterval(() => look().catch(() => {}), 1000);
});

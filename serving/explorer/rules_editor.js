"use strict";
// The editor of the book of rules: it begins with the live book, and puts only what was looked at.
const SAMPLE = 5, SHOWN = 3;
const YAML = { "Content-Type": "application/yaml" };
let liveBook = { text: "", version: 0 };

const liveText = async () => {
  const { text, tag } = await call("/v1/rules?format=yaml", { text: true });
  return { text, version: Number(tag.replaceAll('"', "")) };
};
// The server reads YAML; the page has no reader of its own.
const readBook = async () => (await call("/v1/rules/read", { method: "POST", body: $("book").value, headers: YAML })).book;

async function loadBook() {
  liveBook = await liveText();
  $("book").value = liveBook.text;
  $("based_on").value = liveBook.version;
  showState();
}

function showState() {
  const based = $("based_on").value;
  $("book_state").textContent = $("book").value === liveBook.text
    ? (liveBook.version ? `this is the live book, version ${based}` : "no book is live yet")
    : `changed; made from version ${based}`;
}

function showDiff(before, after) {
  $("diff").replaceChildren(...Diff.diffLines(before, after).flatMap((part) => {
    const kind = part.added ? "ins" : part.removed ? "del" : "span";
    const sign = part.added ? "+ " : part.removed ? "- " : "  ";
    return [element(kind, part.value.replace(/\n$/, "").split("\n").map((line) => sign + line).join("\n") + "\n")];
  }));
}

async function showSample(book) {
  const { users } = await call("/v1/users");
  const asked = { count: Number($("count").value) };
  if ($("placement").value && $("placement").value in (await call("/v1/rules")).all_placements) asked.placement = $("placement").value;
  $("sample").replaceChildren();
  for (const user of [null, ...users.slice(0, SAMPLE)]) {
    const { before, after } = await post("/v1/rules/preview", { book, request: user ? { ...asked, user } : asked });
    const there = before.items.map((one) => one.item);
    const places = Math.max(there.length, after.items.length);
    const changed = [...Array(places).keys()].filter((n) => there[n] !== after.items[n]?.item).length;
    const first = (answer) => answer.items.slice(0, SHOWN).map((one) => one.title).join(", ") || "nothing";
    const row = element("tr");
    for (const text of [user || "nobody known", `${changed} of ${places}`, first(before), first(after)]) row.append(element("td", text));
    $("sample").append(row);
  }
}

async function review() {
  const book = await readBook();
  liveBook = await liveText();
  showState();
  if ($("book").value === liveBook.text) return say("nothing to put: this is the live book");
  showDiff(liveBook.text, $("book").value);
  const { findings } = await call("/v1/rules/lint", { method: "POST", body: $("book").value, headers: YAML });
  $("findings").replaceChildren(...findings.map((one) =>
    element("li", `${one.level}: ${one.line ? `line ${one.line}, ` : ""}${one.rule}: ${one.message}`)));
  await showSample(book);
  const other = Number($("based_on").value) !== liveBook.version;
  const broken = findings.some((one) => one.level === "error");
  const empty = ["rules", "placements", "experiments"].every((part) => !book[part] || !Object.keys(book[part]).length);
  $("review_message").textContent = [
    other ? `The live book is version ${liveBook.version}; yours was made from ${$("based_on").value}. Load the live book, and make your change again.` : "",
    broken ? "Mend the errors above first." : "", empty ? "This book is empty: all rules, placements and experiments go." : "",
  ].filter(Boolean).join("\n");
  $("confirm").disabled = other || broken;
  $("confirm").dataset.empty = empty;
  $("review").showModal();
}

async function put() {
  const query = new URLSearchParams({
    author: $("author").value || "explorer", note: $("note").value, based_on: $("based_on").value, empty: $("confirm").dataset.empty,
  });
  const done = await call(`/v1/rules?${query}`, { method: "PUT", body: $("book").value, headers: YAML });
  $("review").close();
  liveBook = { text: $("book").value, version: done.version };
  $("based_on").value = done.version;
  showState();
  remember();
  say(`rules version ${done.version} is live`);
}

$("book").addEventListener("input", showState);
$("reload").addEventListener("click", () => loadBook().then(remember).catch(say));
$("put").addEventListener("click", () => review().catch(say));
$("cancel").addEventListener("click", () => $("review").close());
$("confirm").addEventListener("click", () => put().catch((error) => { $("review_message").textContent = error.message; }));

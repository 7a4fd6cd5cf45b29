// Calls every operation of a server, by the types that openapi-typescript makes of its description.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.d.ts";

type Book = components["schemas"]["Book"];
type Sent = { data?: unknown; error?: unknown; response: Response };

declare const process: { argv: string[]; exit(code: number): never };

const shop = createClient<paths>({ baseUrl: process.argv[2] });
const book: Book = { rules: [{ id: "clay-week", action: "boost", where: 'brand == "Clay"', factor: 1.5 }] };
const item = { params: { path: { item: "tea" } } };

/** Prints the operation; ends the program unless it went well. */
function went<T extends Sent>(operation: string, sent: T): NonNullable<T["data"]> {
  if (!sent.response.ok || sent.data === undefined) {
    console.error(operation, sent.response.status, sent.error);
    process.exit(1);
  }
  console.log(operation);
  return sent.data as NonNullable<T["data"]>;
}

const taken = went("sendEvents", await shop.POST("/v1/events", {
  params: { query: { partial: true }, header: { "idempotency-key": "once" } },
  body: [
    { type: "product", item: "tea", title: "Green tea", stock: 80, brand: null },
    { type: "purchase", user: "ann", lines: [{ item: "tea", quantity: 2 }] },
    { type: "rating", user: "ann", item: "tea", stars: 9 },
  ],
}));
const refused: string[] = (taken.errors ?? []).map((one) => `${one.index}.${one.field}`);
if (taken.accepted !== 2 || refused.join() !== "2.stars") throw new Error(JSON.stringify(taken));

const answer = went("recommend", await shop.POST("/v1/recommend", {
  body: { user: "ann", count: 2, filters: { brands: ["Acme"] }, fields: ["price", "attr.size"] },
}));
const code: string = answer.items[0].reason.code;
const score: number = answer.items[0].score;
if (!code || !(score > 0)) throw new Error(JSON.stringify(answer));
const wrong = await shop.POST("/v1/recommend", { body: { count: 300 } });
if (wrong.error?.error.field !== "count") throw new Error(JSON.stringify(wrong.error));

const answers = went("recommendBatch", await shop.POST("/v1/recommend/batch", {
  body: { requests: [{ user: "ann" }, { items: ["tea"], placement: "product" }] },
}));
if (answers.answers.length !== 2) throw new Error(JSON.stringify(answers));
went("similarItems", await shop.GET("/v1/items/{item}/similar", { params: { ...item.params, query: { count: 3 } } }));
went("popular", await shop.GET("/v1/popular", { params: { query: { scope: "all", fields: ["price"] } } }));
const query = '{ recommend(user: "ann", count: 1) { items { item } } }';
went("graphqlQuery", await shop.GET("/graphql", { params: { query: { query } } }));
went("graphql", await shop.POST("/graphql", { body: { query } }));

const known = went("item", await shop.GET("/v1/items/{item}", item));
if (known.item !== "tea") throw new Error(JSON.stringify(known));
went("users", await shop.GET("/v1/users"));
const events = went("user", await shop.GET("/v1/users/{user}", { params: { path: { user: "ann" } } })).events;
if (!events.every((event) => event.ts_ms > 0)) throw new Error(JSON.stringify(events));

const live = went("rules", await shop.GET("/v1/rules"));
if (typeof live === "string") throw new Error("YAML, which nobody wished");
const put = went("putRules", await shop.PUT("/v1/rules", {
  params: { query: { author: "eva", based_on: live.version } },
  body: book,
}));
const late = await shop.PUT("/v1/rules", {
  params: { query: { author: "eva" }, header: { "if-match": `"${live.version + 1000}"` } },
  body: book,
});
if (late.response.status !== 409) throw new Error(`${late.response.status}`);
const versions = went("rulesHistory", await shop.GET("/v1/rules/history")).versions;
if (versions[0].version !== put.version) throw new Error(JSON.stringify(versions));
const both = went("previewRules", await shop.POST("/v1/rules/preview", { body: { book, request: { user: "ann" }, at: "now" } }));
if (both.before.request_id === both.after.request_id) throw new Error(JSON.stringify(both));
went("readRules", await shop.POST("/v1/rules/read", { body: book }));
const findings = went("lintRules", await shop.POST("/v1/rules/lint", { body: book })).findings;
if (findings[0].level !== "warning") throw new Error(JSON.stringify(findings));

went("live", await shop.GET("/v1/live"));
const metrics: string = went("metrics", await shop.GET("/metrics", { parseAs: "text" }));
if (!metrics.includes("headrace_build_info")) throw new Error(metrics);
went("healthz", await shop.GET("/healthz"));
went("readyz", await shop.GET("/readyz"));

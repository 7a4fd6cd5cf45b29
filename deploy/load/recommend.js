// Requests at a fixed rate in k6; exits with an error when a threshold is crossed.
//   k6 run -e URL=http://127.0.0.1:8080 -e RATE=200 deploy/load/recommend.js
import http from "k6/http";
import { check } from "k6";

export const options = {
  scenarios: {
    steady: {
      executor: "constant-arrival-rate", rate: Number(__ENV.RATE || 200), timeUnit: "1s",
      duration: __ENV.DURATION || "10s", preAllocatedVUs: 50, maxVUs: 200,
    },
  },
  thresholds: { http_req_failed: ["rate<0.0001"], http_req_duration: ["p(99)<100"], checks: ["rate>0.9999"] },
};

export default function () {
  const body = JSON.stringify({ user: `load-${Math.floor(Math.random() * 10000)}`, count: 10 });
  const answer = http.post(`${__ENV.URL || "http://127.0.0.1:8080"}/v1/recommend`, body, {
    headers: { "Content-Type": "application/json" },
  });
  check(answer, {
    "items, each once": (a) => {
      const items = a.json("items").map((one) => one.item);
      return new Set(items).size === items.length;
    },
  });
}

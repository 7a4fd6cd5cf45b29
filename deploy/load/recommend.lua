-- Answers a second in wrk; exits with 1 when one is wrong or the 99th percentile is over the bound.
--   wrk -t1 -c16 -d10s --latency -s deploy/load/recommend.lua http://127.0.0.1:8080
local SLOWEST_P99_MS = 100
local threads = {}

function setup(thread) table.insert(threads, thread) end

function init(args)
  math.randomseed(os.time())
  bad = 0 -- a global of the thread, so that done() can read it
end

function request()
  local body = string.format('{"user": "load-%d", "count": 10}', math.random(10000))
  return wrk.format("POST", "/v1/recommend", { ["Content-Type"] = "application/json" }, body)
end

function response(status, headers, body)
  if status ~= 200 or not body:find('"items":', 1, true) then bad = bad + 1 end
end

function done(summary, latency, requests)
  local wrong = summary.errors.connect + summary.errors.read + summary.errors.timeout
  for _, thread in ipairs(threads) do wrong = wrong + thread:get("bad") end
  local p99 = latency:percentile(99) / 1000
  print(string.format("wrong or missing: %d   p99: %.1f ms", wrong, p99))
  if summary.requests == 0 or wrong > 0 or p99 > SLOWEST_P99_MS then os.exit(1) end
end

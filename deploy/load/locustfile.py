"""A shop's visitors in locust; ends with an error when answers are wrong, missing or slow.

uvx locust -f deploy/load/locustfile.py --headless --host http://127.0.0.1:8080 -u 20 -r 20 -t 20s
"""

import random

from locust import FastHttpUser, between, events, task

MOST_FAILED, SLOWEST_P99_MS = 0.0001, 100


class Visitor(FastHttpUser):
    """Looks at an item, then sees a list."""

    wait_time = between(0.05, 0.15)

    def on_start(self):
        self.user = f"load-{random.randrange(10_000)}"

    @task(1)
    def look(self):
        event = {"type": "view", "user": self.user, "item": f"item-{random.randrange(1_000)}"}
        self.client.post("/v1/events", json=event)

    @task(4)
    def list(self):
        with self.client.post("/v1/recommend", json={"user": self.user, "count": 10}, catch_response=True) as answer:
            items = [one["item"] for one in answer.json()["items"]] if answer.status_code == 200 else []
            if len(set(items)) != len(items):
                answer.failure("an item is there twice")


@events.quitting.add_listener
def judge(environment, **more):
    """Set the exit code by what was measured."""
    total = environment.stats.total
    p99 = total.get_response_time_percentile(0.99) or 0
    if total.num_requests == 0 or total.fail_ratio > MOST_FAILED or p99 > SLOWEST_P99_MS:
        environment.process_exit_code = 1

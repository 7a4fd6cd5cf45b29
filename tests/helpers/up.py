"""`headrace up` as a process, and what its user does with it."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import quote

HEADRACE = [sys.executable, "-m", "headrace"]


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def wait_for(true, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            found = true()
        except (OSError, ValueError):
            found = None
        if found:
            return found
        time.sleep(0.05)
    raise TimeoutError("it did not happen in time")


class Up:
    def __init__(self, folder, *options):
        self.folder, self.options, self.said, self._killed = folder, options, [], False
        self.environment = os.environ | {
            "HEADRACE_DATA_DIR": str(folder), "HEADRACE_HTTP_PORT": "0", "HEADRACE_GRPC_PORT": "0",
            "HEADRACE_FLOW_METRICS_PORT": "0", "HEADRACE_FACTORS": "4", "HEADRACE_NIGHT_AT": "off",
        }  # fmt: skip

    def __enter__(self):
        self.process = subprocess.Popen(
            [*HEADRACE, "up", *self.options],
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True)
        self._reader.start()
        self.where = wait_for(lambda: json.loads((self.folder / "run.json").read_text()), 200)  # it may compile first
        return self

    def __exit__(self, *error):
        if not self._killed:
            self.process.send_signal(signal.SIGINT)
            assert self.process.wait(60) == 0
        self._reader.join()
        self.process.stderr.close()

    def kill(self):
        """End the supervisor as a crash would."""
        self.process.kill()
        self.process.wait()
        self._killed = True

    def at_work(self, name):
        return json.loads((self.folder / "run.json").read_text())["pids"][name]

    def processes(self):
        """Return the pids of everything that the supervisor started, and its own."""
        return _and_children(self.process.pid)

    def events(self, *events):
        return post(self.where["http"] + "/v1/events", list(events))

    def events_when_it_answers(self, *events):
        wait_for(lambda: self.events(*events))

    def knows(self, user):
        """Return whether the server shows events of a user."""
        with urllib.request.urlopen(f"{self.where['http']}/v1/users/{quote(user)}", timeout=10) as answer:
            return json.loads(answer.read())["n_events"] > 0

    def recommend(self, **request):
        return post(self.where["http"] + "/v1/recommend", request)


def _and_children(pid):
    lists = [task.joinpath("children").read_text() for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]
    return {pid}.union(*(_and_children(int(child)) for one in lists for child in one.split()))


def run(up, *arguments):
    environment = up.environment  # as in a second terminal, where no address is set
    command = [*HEADRACE, *arguments, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def views(n):
    return [{"type": "view", "user": f"u{k % 20}", "item": f"i{(k * 7) % 30}"} for k in range(n)]

"""Starts the services of docker-compose.yml as plain processes, as a container engine would.

Run in namespaces of its own (`unshare -r -m -n`): the services' names resolve to loopback and
their ports are free, so every process gets exactly the environment the file gives it. What an
image's entry point does is done here for Kafka (environment -> properties) and the registry.

    compose_runner.py COMPOSE_FILE WORK_FOLDER KAFKA_CLASS_PATH REGISTRY_FOLDER JAVA

Prints one JSON line for every service that became healthy; then posts an event and prints the
answer; ends with the exit codes of a clean stop.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import yaml

file, work, class_path, registry, java = sys.argv[1:]
services = yaml.safe_load(Path(file).read_text())["services"]
processes = {}


def image_command(name, environment, folder):
    """The command the image itself brings, where the file names none."""
    if name == "kafka":
        lines = [f"{key[6:].lower().replace('_', '.')}={value}" for key, value in environment.items()]
        properties = folder / "server.properties"
        properties.write_text("\n".join(lines) + "\n")
        tool = [java, "-cp", class_path]
        cluster = "MkU3OEVBNTcwNTJENDM2Qk"
        subprocess.run([*tool, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", properties], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        return [*tool, "-Xmx512m", "kafka.Kafka", str(properties)]
    assert name == "registry"
    return [java, "-Xmx512m", "-jar", f"{registry}/quarkus-run.jar"]


def start(name):
    service = services[name]
    folder = Path(work) / name
    folder.mkdir()
    environment = {key: str(value) for key, value in service.get("environment", {}).items()}
    command = service.get("command") or image_command(name, environment, folder)
    inherited = {key: os.environ[key] for key in ("PATH", "HOME", "NUMBA_CACHE_DIR") if key in os.environ}
    with (folder / "log").open("wb") as out:
        processes[name] = subprocess.Popen(
            command, env=inherited | environment, cwd=folder, stdout=out, stderr=subprocess.STDOUT
        )


def wait_until_healthy(name):
    check = services[name].get("healthcheck")
    for _ in range(240):
        code = processes[name].poll()
        if check is None and (code == 0 or services[name].get("restart") != "no"):
            return  # a job that is done, or a program that only runs
        if code is not None:
            sys.exit(f"{name} ended with {code}: {(Path(work) / name / 'log').read_text(errors='replace')[-2000:]}")
        if check is not None:
            assert check["test"][0] == "CMD"
            if subprocess.run(check["test"][1:], capture_output=True, check=False).returncode == 0:
                return
        time.sleep(0.5)
    sys.exit(f"{name} never became healthy: {(Path(work) / name / 'log').read_text(errors='replace')[-2000:]}")


def order():
    placed = []
    while len(placed) < len(services):
        for name, service in services.items():
            if name not in placed and set(service.get("depends_on", {})) <= set(placed):
                placed.append(name)
    return placed


def ask(path, body):
    request = urllib.request.Request(
        f"http://localhost:8080{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


try:
    for name in order():
        start(name)
        wait_until_healthy(name)
        print(json.dumps({"healthy": name}), flush=True)
    for item in ("tea", "milk"):
        ask("/v1/events", {"type": "view", "user": "u1", "item": item})
    deadline = time.monotonic() + 60
    answer = ask("/v1/recommend", {"user": "u1"})
    while not answer["items"] and time.monotonic() < deadline:
        time.sleep(0.1)
        answer = ask("/v1/recommend", {"user": "u1"})
    with urllib.request.urlopen("http://localhost:8085/apis/ccompat/v7/subjects", timeout=10) as found:
        subjects = json.loads(found.read())
    print(json.dumps({"answer": answer, "subjects": subjects}), flush=True)
    log = Path(work) / "night" / "log"  # it has no health check, and a program that still loads ends by the signal
    while b"training every night" not in log.read_bytes() and time.monotonic() < deadline + 60:
        time.sleep(0.1)
    codes = {}
    for name in ("night", "server", "flow", "redis"):
        processes[name].send_signal(signal.SIGTERM)
        codes[name] = processes[name].wait(30)
    print(json.dumps({"stopped": codes}), flush=True)
finally:
    for process in processes.values():
        process.kill()

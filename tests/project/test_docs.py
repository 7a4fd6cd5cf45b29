"""The docs say what is there: links, paths, rooms, commands, settings, and examples that are taken as they stand."""

import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from headrace import settings
from headrace.cli.main import BENCHES, COMMANDS, load_command
from schemas.json_events import encode, event_from_json
from schemas.registry import FolderRegistry
from serving.candidates.strategies import SOURCES

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PACKAGES = ("headrace", "batch", "serving", "flows", "state", "schemas")
ROOMS = "|".join(PACKAGES)
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def slugs(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[str]:
    yield from re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text()))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    for link in links(page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in slugs(target), link


def test_links_between_pages_are_found():
    assert len(PAGES) >= 20
    assert sum(1 for page in PAGES for link in links(page) if "://" not in link) >= 100


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_path_that_is_named_exists(page):
    # `avro/<topic>.avsc` and the like stand for several.
    paths = re.findall(rf"(?<![\w/.<-])((?:{ROOMS}|tests|docs|deploy)/[\w./<>-]*)", page.read_text())
    for path in paths:
        assert "<" in path or (ROOT / path.rstrip(".")).exists(), path


def test_the_architecture_names_every_room_and_no_other():
    rows = re.findall(rf"^\| `((?:{ROOMS})/(?:\w+/)?)` \|", (ROOT / "docs/architecture.md").read_text(), re.M)
    rooms = {f"{package}/" for package in PACKAGES if any((ROOT / package).glob("[a-z]*.py"))}
    for package in PACKAGES:
        rooms |= {f"{package}/{part.name}/" for part in (ROOT / package).iterdir() if (part / "__init__.py").exists()}
    rooms |= {"serving/explorer/"}
    assert len(rows) == len(set(rows)) >= 25
    assert set(rows) == rooms | ({"serving/"} & set(rows))


def test_every_setting_that_is_named_exists():

    known = {f"HEADRACE_{name.upper()}" for name in settings.Settings.model_fields} | settings.OTHER_VARIABLES
    found = {name for page in PAGES for name in re.findall(r"\bHEADRACE_[A-Z_]+[A-Z]\b", page.read_text())}
    others = {
        "HEADRACE_NAME",
        "HEADRACE_REQUIRE_KEY",
        "HEADRACE_DEFAULT_COUNTRY",
    }  # a pattern, a former one, a recipe's
    assert found - others <= known
    assert len(found) > 40


@cache
def options_of(words: tuple[str, ...]) -> set[str] | None:
    """Return the options of the command that a line names; None where it names none (prose)."""
    package, name = (
        ("headrace.bench", words[1]) if words[0] == "bench" and len(words) > 1 else ("headrace.cli", words[0])
    )
    if name not in (BENCHES if package == "headrace.bench" else COMMANDS):
        return None
    return {option for parameter in load_command(package, name).params for option in parameter.opts}


def test_every_command_line_has_a_command_and_its_options():
    n = 0
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        text = page.read_text().replace("\\\n", " ")
        for line in re.findall(r"(?:^ *|`|KEY=\S+ |\d headrace |)(?:\.venv/bin/)?headrace ([a-z][^`\n]*)", text):
            command = line.partition(" #")[0]
            options = options_of(tuple(command.split()[:2]))
            if options is not None:
                assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", command)) <= options, (named(page), line)
                n += 1
    assert n > 80


def test_the_events_of_the_docs_are_taken_as_json_and_as_avro():
    text = (ROOT / "docs" / "events.md").read_text()
    types, topics = set(), set()
    for block in re.findall(r"^```json\n(\{\"type\".*?)\n```", text, re.M | re.S):
        event = json.loads(block)
        event_from_json(
            {"event_id": "e", **event} if event["type"] not in ("product", "product_gone") else event, 0 + 2**40
        )
        types.add(event["type"])
    for topic, block in re.findall(r"^Avro record on `([a-z-]+)`.*?```json\n(.*?)\n```", text, re.M | re.S):
        assert encode(topic, json.loads(block), FolderRegistry())
        topics.add(topic)
    assert len(types) == 8
    assert len(topics) == 8


def test_the_docs_name_the_sources_of_every_strategy():
    text = (ROOT / "docs" / "recommend.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|$", text, re.M)
    assert {name: re.findall(r"\w+", sources) for name, sources in rows} == {
        name: [source.__name__ for source in sources] for name, sources in SOURCES.items()
    }
    assert {source.__name__ for sources in SOURCES.values() for source in sources} <= set(
        re.findall(r"^\| `(\w+)` \| ", text, re.M)
    )


def test_the_changelog_has_sections_under_the_versions_there_are():
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(.*?)\](?: - (\d{4}-\d\d-\d\d))?$", text, re.M)
    assert versions[0] == ("Unreleased", "")
    assert versions[1][0] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert all(date for _, date in versions[1:])
    assert set(re.findall(r"^### (.*)$", text, re.M)) <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    }

"""Who is let in: files of keys, callers without one, rates, and when a server does not start."""

import os
import subprocess
import sys

import orjson
import pytest
from structlog.testing import capture_logs

from headrace.cli import keys
from headrace.settings import Settings, load_settings
from serving.auth.access import PRESETS, SCOPES, access_of
from serving.auth.api_keys import BadKeys, Guard, Refused, make_key, open_guard, read_keys, write_keys
from state.settings import BadSettings


def admits(guard, secret, scope, cost=1):
    try:
        guard.admit(secret, scope, cost)
    except Refused as refusal:
        return refusal.status
    return 200


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("localhost", True), ("::1", True), ("", False), ("0.0.0.0", False),
     ("::", False), ("10.0.0.1", False), ("192.168.1.7", False), ("shop.example", False), ("::ffff:10.0.0.1", False)],
)  # fmt: skip
def test_only_loopback_is_local(host, local):
    assert Settings(http_host=host).is_local == local


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "10.0.0.1"])
def test_a_server_that_others_reach_needs_keys_or_the_word_that_it_needs_none(tmp_path, host):
    settings = Settings(http_host=host, data_dir=tmp_path)
    with pytest.raises(BadSettings, match=r"keys add .* --preset storefront.*HEADRACE_ALLOW_ANONYMOUS=true"):
        open_guard(settings)
    open_guard(settings.model_copy(update={"allow_anonymous": True}))
    write_keys(settings.keys_path, [make_key("shop", ("recommend",))[1]])
    assert admits(open_guard(settings), "", "recommend") == 401


@pytest.mark.process
@pytest.mark.parametrize("command", ["serve", "up"])
def test_a_program_that_would_be_open_to_all_does_not_start(tmp_path, command):
    environment = os.environ | {"HEADRACE_DATA_DIR": str(tmp_path / "data"), "HEADRACE_HTTP_HOST": "0.0.0.0",
                                "HEADRACE_REDIS_URL": "redis://127.0.0.1:1/0"}  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "headrace", command], env=environment, capture_output=True,
                          text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 2
    assert "headrace keys add" in done.stderr
    assert "HEADRACE_ALLOW_ANONYMOUS=true" in done.stderr
    assert "Traceback" not in done.stderr


def test_who_has_no_key_may_do_everything_on_loopback_until_there_are_keys(tmp_path):
    settings = Settings(data_dir=tmp_path)
    guard = open_guard(settings)
    assert {admits(guard, "", scope) for scope in SCOPES} == {200}
    secret, key = make_key("shop", ("recommend",))
    write_keys(settings.keys_path, [key])
    guard.follow()
    assert {admits(guard, "", scope) for scope in SCOPES} == {401}
    assert admits(guard, secret, "recommend") == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("with_keys", [True, False])
def test_anonymous_callers_may_recommend_and_send_events_and_no_more(tmp_path, host, with_keys):
    settings = Settings(data_dir=tmp_path, http_host=host, allow_anonymous=True)
    if with_keys:
        write_keys(settings.keys_path, [make_key("shop", ("recommend",))[1]])
    guard = open_guard(settings)
    assert {scope for scope in SCOPES if admits(guard, "", scope) == 200} == {"recommend", "events"}
    assert admits(guard, "wrong", "recommend") == 401


def lost(path):
    path.unlink()


def emptied(path):
    write_keys(path, [])


def damaged(path):
    path.write_text('[{"name": "x"')


def writable_by_others(path):
    write_keys(path, [make_key("stranger", SCOPES)[1]])
    path.chmod(0o666)


@pytest.mark.parametrize("change", [lost, damaged, writable_by_others])
def test_a_file_that_breaks_keeps_the_last_good_keys_and_says_so_once(tmp_path, change):
    settings = Settings(data_dir=tmp_path)
    secret, key = make_key("shop", ("recommend",))
    write_keys(settings.keys_path, [key])
    guard = open_guard(settings)
    change(settings.keys_path)
    with capture_logs() as logs:
        guard.follow()
        guard.follow()
    assert [line["log_level"] for line in logs] == ["error"]
    assert admits(guard, secret, "recommend") == 200
    assert {admits(guard, "", scope) for scope in SCOPES} == {401}
    other, another = make_key("other", ("events",))
    settings.keys_path.unlink(missing_ok=True)
    write_keys(settings.keys_path, [another])
    guard.follow()
    assert (admits(guard, secret, "recommend"), admits(guard, other, "events")) == (401, 200)


def test_a_server_whose_last_key_was_removed_stays_closed(tmp_path):
    settings = Settings(data_dir=tmp_path)
    write_keys(settings.keys_path, [make_key("shop", ("recommend",))[1]])
    guard = open_guard(settings)
    emptied(settings.keys_path)
    guard.follow()
    assert {admits(guard, "", scope) for scope in SCOPES} == {401}


@pytest.mark.parametrize("text", ['[{"name": "x"}]', "{}", "[1]", "x", "[", '[{"name":"x","sha256":"00","scopes":[]}]'])
def test_a_damaged_file_stops_the_start(tmp_path, text):
    settings = Settings(data_dir=tmp_path)
    settings.keys_path.write_text(text)
    with pytest.raises(BadKeys, match=r"keys\.json"):
        open_guard(settings)


def test_a_file_that_others_may_write_stops_the_start(tmp_path):
    settings = Settings(data_dir=tmp_path)
    write_keys(settings.keys_path, [])
    settings.keys_path.chmod(0o620)
    with pytest.raises(BadKeys, match="chmod 600"):
        open_guard(settings)


def test_the_file_is_its_owner_s_whatever_was_there_before(tmp_path):
    old = tmp_path / "keys.new"
    old.write_text("left behind by a crash")
    old.chmod(0o666)
    write_keys(tmp_path / "keys.json", [])
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600


def test_scopes_of_files_from_before_stand_for_those_of_today(tmp_path):
    path = tmp_path / "keys.json"
    kept = [make_key(name, ())[1].model_dump() | {"scopes": scopes}
            for name, scopes in (("page", ["read", "events"]), ("boss", ["read", "admin"]))]  # fmt: skip
    path.write_bytes(orjson.dumps(kept))
    page, boss = read_keys(path)
    assert page.scopes == ("recommend", "events")
    assert set(boss.scopes) == set(SCOPES)


def test_a_rate_counts_lists_and_a_refused_call_takes_none_of_it(tmp_path):
    secret, key = make_key("shop", ("recommend",), per_second=10)
    write_keys(tmp_path / "keys.json", [key])
    guard = Guard(tmp_path / "keys.json")
    assert admits(guard, secret, "recommend", 11) == 422  # never possible
    assert admits(guard, secret, "recommend", 6) == 200
    assert admits(guard, secret, "recommend", 5) == 429
    assert admits(guard, secret, "recommend", 4) == 200
    assert admits(guard, secret, "recommend", 1) == 429
    assert admits(guard, secret, "recommend", 0) == 200
    assert admits(guard, secret, "rules", 1) == 403


@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_command_makes_keys_by_presets_and_scopes(tmp_path, capsys, preset):
    assert keys.run(Settings(data_dir=tmp_path), "add", "shop", preset, ["rules"], 0, json=True) == 0
    made = orjson.loads(capsys.readouterr().out)
    assert set(made["scopes"]) == {*PRESETS[preset], "rules"}
    guard = Guard(tmp_path / "keys.json")
    assert {scope for scope in SCOPES if admits(guard, made["key"], scope) == 200} == {*PRESETS[preset], "rules"}


def test_a_storefront_key_can_neither_erase_nor_delete_nor_read_a_stranger_s_history():
    assert set(PRESETS["storefront"]).isdisjoint(access_of("GET", "/v1/users/ann").scopes)
    assert set(PRESETS["storefront"]) == {"recommend", "events"}
    assert set(PRESETS["admin"]) == set(SCOPES)


@pytest.mark.parametrize(("preset", "scopes"), [("", ["admin"]), ("boss", []), ("", ["read"]), ("", ["events", "x"])])
def test_the_command_names_the_scopes_there_are(tmp_path, capsys, preset, scopes):
    assert keys.run(Settings(data_dir=tmp_path), "add", "shop", preset, scopes, 0, json=False) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in (*SCOPES, *PRESETS))
    assert not (tmp_path / "keys.json").exists()


def test_the_setting_of_before_is_named_with_what_holds_instead(monkeypatch):
    monkeypatch.setenv("HEADRACE_REQUIRE_KEY", "true")
    with pytest.raises(BadSettings, match=r"HEADRACE_REQUIRE_KEY is no setting any more: .*allow_anonymous"):
        load_settings()

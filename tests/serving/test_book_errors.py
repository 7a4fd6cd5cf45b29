"""Errors of a book come all at once, each with its line, what is allowed and what may be meant."""

import re

import pytest
from helpers.books import PRODUCTS
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import NOW, product, shop_events
from helpers.up import wait_for

from headrace.cli.rules import STARTER
from serving.rules.book_errors import BadBook
from serving.rules.book_store import lines_of, parse_book, plain, yaml_of
from serving.rules.condition_values import country_code
from serving.rules.hints import ACTIONS, EXAMPLES, OTHERS
from serving.rules.lint import lint

WRONG = """\
rules:
- {id: hero, action: pn, items: [cup]}
- id: x
  action: boost
  where: brnd == "Kaito"
  factr: 2
  placements: [hom]
- {id: y, action: pin, items: cup, postion: 1}
- {id: y, action: promote, where: brand == 5, positions: [0]}
- {id: z, action: boost, where: price = 3, factor: 2}
- {id: Big Sale, action: cap, by: colour, most: 2}
- {id: w, action: exclude, when: weekday == "Monday", where: brand == Ours}
experiments:
- {id: e, arms: [{name: a}, {name: b, without_rules: [herro]}]}
placments: {}
"""
EXPECTED = [
    (2, "rule hero", "", "no action 'pn'; did you mean pin? There are boost, cap, exclude, include, min_margin"),
    (3, "rule x", "factor", "is missing in a rule with action boost, as {id: own-brand, action: boost, where:"),
    (5, "rule x", "where", "at 1: 'brnd' is not known; did you mean brand? There are attr.NAME, brand"),
    (6, "rule x", "factr", "there is no such field; did you mean factor? A rule with action boost has action"),
    (7, "rule x", "placements.0", "there is no placement hom; did you mean home? There are basket, email, home"),
    (8, "rule y", "items", "is a text, where a list is needed, as {id: hero, action: pin, items: [sku-1, sku-2]"),
    (8, "rule y", "postion", "there is no such field; did you mean position?"),
    (9, "rule y", "where", "at 10: must be a text in quotes, as '5'"),
    (9, "rule y", "positions.0", "should be greater than or equal to 1; got 0"),
    (9, "rule y", "id", "rule y is there twice"),
    (10, "rule z", "where", "is no expression: invalid syntax; write == to compare"),
    (11, "rule Big Sale", "id", "write big-sale"),
    (11, "rule Big Sale", "by", "cannot be 'colour'; it is one of brand, category, seller"),
    (12, "rule w", "when", "weekday is a number from 0 (Monday) to 6 (Sunday); Monday is 0"),
    (12, "rule w", "where", "must be a text in quotes, as 'Ours'"),
    (14, "experiment e", "arms.1.without_rules.0", "there is no rule herro in this book; did you mean hero?"),
    (15, "", "placments", "there is no such field; did you mean placements? A book has experiments, placements, rules"),
]


def errors_in(text):
    with pytest.raises(BadBook) as wrong:
        parse_book(text)
    return wrong.value.errors


def test_all_errors_come_at_once_in_the_order_of_the_lines():
    found = errors_in(WRONG)
    assert {(one.line, one.rule, one.field) for one in found} == {expected[:3] for expected in EXPECTED}
    for line, rule, field, message in EXPECTED:
        said = {one.message for one in found if (one.line, one.rule, one.field) == (line, rule, field)}
        assert any(message in one for one in said), (message, said)
    assert [one.line for one in found] == sorted(one.line for one in found)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('rules:\n- {id: a, action: exclude, where: under(category, "x")}', "line 2, book: is no YAML at column"),
        ("rules:\n- {id: a, action: exclude, where: under(category, x)}", "single quotes"),
        ("rules:\n\t- a", "line 2, book: YAML is indented with spaces, and this line has a tab"),
        ("rules: []\nrules: []", "line 2, book: `rules` is there twice, first on line 1"),
        ("rules: [{id: a, action: exclude, where: price > 1 AND price < 2}]", "write `and` for `AND`"),
        ("rules: [{id: a, action: exclude, where: unde(brand)}]", "unde is not known; did you mean under?"),
        ("rules: [{id: a, action: exclude, where: price == '3'}]", "price is a number, which has no quotes"),
        ("rules: [{id: a, action: min_stock, least: 1, when: \"weekday in ['Sonntag']\"}]", "Sonntag is 6"),
        ("rules: [{id: a, action: min_stock, least: 1, when: weekday == 'noon'}]", "from 0 (Monday) to 6 (Sunday)"),
        ("placements: {home: {fields: [prise]}}", "there is no product field 'prise'; did you mean price?"),
        ("- a", "line 1: is a list, where a mapping is needed"),
    ],
)  # fmt: skip
def test_what_is_meant_is_guessed(text, says):
    assert any(says in str(one) for one in errors_in(text))


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_has_an_example_that_is_valid(action):
    book = parse_book(f"rules: [{EXAMPLES[action]}]")
    assert book.rules[0].action == action


def test_the_other_examples_and_the_starter_are_valid():
    parse_book(f"placements: {{{OTHERS['placements']}}}\nexperiments: [{OTHERS['experiments']}]")
    starter = parse_book(STARTER)
    whole = parse_book("rules:\n" + re.sub("^# ", "", STARTER.split("rules:\n", 1)[1], flags=re.M))
    assert (len(starter.rules), len(starter.experiments), len(whole.rules), len(whole.experiments)) == (2, 0, 6, 1)


def test_a_book_as_yaml_is_read_as_the_same_book():
    book = parse_book(STARTER)
    assert parse_book(yaml_of(plain(book))) == book
    assert yaml_of(plain(parse_book("{}"))) == ""


SHOP = [*PRODUCTS, product("knife", "Knife", brand="Kaito", category="kitchen/knives", attributes={"steel": "VG10"})]
VALUES = {
    "where: brand == 'kaito'": "no item's brand is 'kaito'; did you mean Kaito?",
    "where: \"brand in ['Kaito', 'Globexx']\"": "no item's brand is 'Globexx'; did you mean Globex?",
    "where: 'under(category, \"kitchens\")'": "no item's category is or lies under 'kitchens'; did you mean kitchen?",
    "where: 'contains(brand, \"zzz\")'": "no item's brand contains 'zzz'",
    "where: attr.stel == 'VG10'": "no item has an attribute stel; did you mean steel? Items have steel",
    "where: attr.steel == 'VG1'": "no item's attr.steel is 'VG1'; did you mean VG10?",
    "where: price > 1, when: country == 'Germany'": "no code of ISO 3166 as DE; did you mean DE?",
    "where: price > 1, when: placement == 'hom'": "there is no placement 'hom'; did you mean home?",
    "where: price > 1, when: likes('kaito')": "no category or brand is 'kaito'; did you mean Kaito?",
}


@pytest.mark.parametrize("condition", VALUES)
def test_a_value_that_nothing_has_is_a_warning_with_a_guess(condition):
    catalogue = recommender_of(shop_events(), SHOP)[0].shop.catalogue
    text = f"rules:\n- {{id: a, action: min_stock, least: 1}}\n- {{id: r, action: boost, factor: 2, {condition}}}"
    found = [one for one in lint(parse_book(text), catalogue, NOW, lines=lines_of(text)) if one["field"]]
    assert [(one["rule"], one["level"], one["line"]) for one in found] == [("r", "warning", 3)]
    assert VALUES[condition] in found[0]["message"]


@pytest.mark.parametrize(
    "condition",
    [
        "where: brand == 'Kaito' and under(category, 'kitchen') and attr.steel != 'VG10'",
        "where: startswith(brand, 'k')",
        "where: price > 1, when: country == 'DE' and user == 'x' and likes('Kaito')",
    ],
)  # fmt: skip
def test_values_that_items_or_requests_have_are_no_warning(condition):
    catalogue = recommender_of(shop_events(), SHOP)[0].shop.catalogue
    quoted = condition.replace("where: ", 'where: "').replace(", when: ", '", when: "') + '"'
    book = parse_book(f"rules: [{{id: r, action: boost, factor: 2, {quoted}}}]")
    assert [one for one in lint(book, catalogue, NOW) if one["field"]] == []


def test_countries_are_known_by_their_names():
    names = ("Germany", "deutschland", "Vereinigte Staaten", "USA", "de", "UK", "Atlantis")
    assert [country_code(name) for name in names] == ["DE", "DE", "US", "US", "DE", "GB", ""]


def test_over_rest_a_book_is_not_wiped_and_not_put_over_another(tmp_path):
    recommender, _ = recommender_of(shop_events(), SHOP)
    with running(tmp_path, recommender) as server:
        headers = {"Content-Type": "application/yaml"}

        def put(book, tag="", **query):
            more = headers | ({"If-Match": tag} if tag else {})
            return server.client.put("/v1/rules", params={"author": "ann", **query}, content=book, headers=more)

        first = put("rules: [{id: a, action: boost, where: brand == 'kaito', factor: 2}]", based_on=0)
        assert (first.status_code, first.json()["version"]) == (201, 1)
        assert "did you mean Kaito" in first.json()["warnings"][0]["message"]
        assert "is empty" in put("").json()["error"]["message"]
        assert "is empty" in put("  \n", empty=True).json()["error"]["message"]
        for nothing in ("{}", "rules: []", "# a comment"):
            refused = put(nothing)
            assert (refused.status_code, "empty=true" in refused.json()["error"]["message"]) == (422, True)
        wrong = put(WRONG)
        assert wrong.status_code == 422
        assert len(wrong.json()["errors"]) == len(EXPECTED)
        assert wrong.json()["errors"][0].keys() == {"line", "rule", "field", "message"}
        nowhere = "rules:\n- {id: pin, action: pin, items: [nowhere]}"
        (error,) = put(nowhere).json()["errors"]
        assert error == {"line": 2, "rule": "rule pin", "field": "",
                         "message": "pins nowhere, which is not in the catalogue"}  # fmt: skip
        for over in ({"based_on": 0}, {"based_on": 7}, {"tag": '"0"'}, {"tag": "7"}):
            refused = put(nowhere, force=True, **over)
            assert (refused.status_code, refused.json()["version"]) == (409, 1), over
            assert "the live book is version 1" in refused.json()["error"]["message"]
        assert put(nowhere, tag='"one"').status_code == 422
        assert put(nowhere, force=True, tag='"1"').json()["version"] == 2
        assert put(nowhere, force=True, tag="*").json()["version"] == 3
        assert put("{}", empty=True, based_on=3).json()["version"] == 4
        versions = server.client.get("/v1/rules/history").json()["versions"]
        assert [one["version"] for one in versions] == [4, 3, 2, 1]


def test_a_book_keeps_the_comments_of_its_author(tmp_path):
    recommender, _ = recommender_of(shop_events(), SHOP)
    written = "# ask Kim first\nrules:\n- {id: a, action: boost, where: price > 3, factor: 2}  # until spring\n"
    with running(tmp_path, recommender) as server:

        def text_after_putting(**body):
            version = server.client.put("/v1/rules?author=ann", **body).json()["version"]
            wait_for(lambda: server.client.get("/v1/rules").json()["version"] == version)
            return server.client.get("/v1/rules?format=yaml").text

        yaml = {"Content-Type": "application/yaml"}
        assert text_after_putting(content=written, headers=yaml) == written
        assert "text" not in server.client.get("/v1/rules").json()
        generated = text_after_putting(json={"rules": [{"id": "a", "action": "min_stock", "least": 2}]})
        assert generated == "rules:\n- id: a\n  action: min_stock\n  least: 2\n"
        assert "#" not in text_after_putting(content=written + "# long\n" * 40_000, headers=yaml)
        assert all("text" not in one for one in server.client.get("/v1/rules/history").json()["versions"])

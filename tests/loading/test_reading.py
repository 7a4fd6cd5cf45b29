"""Files of every kind and habit: encodings, separators, marks of numbers, dates, sheets, objects, orders."""

import gzip
import json
import zipfile

import orjson
import pytest
from helpers.loading import bare, understood

from headrace.loading.errors import BadFile
from headrace.loading.reading import ReadingOptions

TEXT = "user,item,ts\nu1,Thé,1700000000\nu2,cup,1700000060\n"
VIEWS = [{"type": "view", "user": "u1", "item": "Thé", "ts_ms": 1_700_000_000_000},
         {"type": "view", "user": "u2", "item": "cup", "ts_ms": 1_700_000_060_000}]  # fmt: skip
ROWS = [{"user": "u1", "item": "Thé", "ts": 1_700_000_000}, {"user": "u2", "item": "cup", "ts": 1_700_000_060}]


def zipped(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner.csv", content)


WRITERS = {
    "utf-8": lambda path: path.write_text(TEXT),
    "utf-8 with a mark": lambda path: path.write_text(TEXT, "utf-8-sig"),
    "utf-16": lambda path: path.write_text(TEXT, "utf-16"),
    "latin-1": lambda path: path.write_text(TEXT, "latin-1"),
    "semicolons": lambda path: path.write_text(TEXT.replace(",", ";")),
    "tabs": lambda path: path.write_text(TEXT.replace(",", "\t")),
    "bars": lambda path: path.write_text(TEXT.replace(",", "|")),
    "sep= line": lambda path: path.write_text("sep=;\n" + TEXT.replace(",", ";")),
    "Windows ends": lambda path: path.write_bytes(TEXT.replace("\n", "\r\n").encode()),
    "blank lines": lambda path: path.write_text("\n" + TEXT.replace("\n", "\n\n")),
    "gzip": lambda path: path.write_bytes(gzip.compress(TEXT.encode())),
    "zip": lambda path: zipped(path, TEXT),
    "JSON lines": lambda path: path.write_bytes(b"\n".join(map(orjson.dumps, ROWS))),
    "JSON list": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "JSON list in an object": lambda path: path.write_text(json.dumps({"n": 2, "events": ROWS})),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_content_says_what_a_file_is_whatever_its_name(tmp_path, kind):
    file = tmp_path / "export.DAT"
    WRITERS[kind](file)
    found, findings = understood(file)
    assert bare(found) == VIEWS
    assert not findings.refused


def test_a_file_of_another_script_is_read_in_its_encoding(tmp_path):
    file = tmp_path / "e.csv"
    title = "Чай зелёный листовой крупный"
    file.write_bytes(f"sku;title;price\n1;{title};12,50\n2;{title} второй;9,00\n".encode("cp1251"))
    found, _ = understood(file)
    assert found[0] == {"type": "product", "item": "1", "title": title, "price": 12.5}


def write_workbook(path, sheets):
    """Write sheets of rows as Excel does: texts as texts, numbers as numbers."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    kinds = "http://schemas.openxmlformats.org/package/2006"
    with zipfile.ZipFile(path, "w") as book:
        top = f'<Relationship Id="r0" Type="{office}/officeDocument" Target="xl/workbook.xml"/>'
        book.writestr("_rels/.rels", f'<Relationships xmlns="{kinds}/relationships">{top}</Relationships>')
        names = "".join(f'<sheet name="{name}" sheetId="{n}" r:id="r{n}"/>' for n, name in enumerate(sheets, 1))
        book.writestr(
            "xl/workbook.xml", f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>{names}</sheets></workbook>'
        )
        files = "".join(f'<Relationship Id="r{n}" Type="{office}/worksheet" Target="worksheets/sheet{n}.xml"/>'
                        for n in range(1, len(sheets) + 1))  # fmt: skip
        book.writestr(
            "xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{kinds}/relationships">{files}</Relationships>'
        )
        book.writestr("[Content_Types].xml", f'<Types xmlns="{kinds}/content-types"/>')
        for n, rows in enumerate(sheets.values(), 1):
            cells = (
                [f'<c r="{"ABC"[column]}{line}" t="inlineStr"><is><t>{cell}</t></is></c>' if isinstance(cell, str)
                 else f'<c r="{"ABC"[column]}{line}"><v>{cell}</v></c>' for column, cell in enumerate(row)]
                for line, row in enumerate(rows, 1)
            )  # fmt: skip
            body = "".join(f'<row r="{line}">{"".join(row)}</row>' for line, row in enumerate(cells, 1))
            sheet = f'<worksheet xmlns="{main}"><sheetData>{body}</sheetData></worksheet>'
            book.writestr(f"xl/worksheets/sheet{n}.xml", sheet)


def test_a_sheet_of_a_workbook(tmp_path):
    file = tmp_path / "b.xlsx"
    rows = [["SKU", "Name", "Price"], [17, "Tea", 4.5], ["0018", "Cup", 7]]
    write_workbook(file, {"cover": [], "products": rows})
    found, findings = understood(file)
    assert [(one["item"], one["title"], one["price"]) for one in found] == [("17", "Tea", 4.5), ("0018", "Cup", 7.0)]
    assert (findings.format, findings.details["sheet"]) == ("Excel", "products")
    with pytest.raises(BadFile, match=r"--sheet nil: b\.xlsx has the sheets cover, products"):
        understood(file, reading=ReadingOptions(sheet="nil"))


def test_a_catalogue_with_attributes_and_words_of_availability(tmp_path):
    file = tmp_path / "p.csv"
    file.write_text(
        "id;name;Farbe;Größe;price;availability\n007;Tee;grün;;1.299,00 €;out of stock\n8;Pot;;L;;in stock\n"
    )
    found, _ = understood(file, map="item=id,title=name,price=price,availability=availability", attributes="*")
    assert found == [
        {
            "type": "product",
            "item": "007",
            "title": "Tee",
            "price": 1299.0,
            "stock": 0,
            "attributes": {"Farbe": "grün"},
        },
        {"type": "product", "item": "8", "title": "Pot", "stock": None, "attributes": {"Größe": "L"}},
    ]  # fmt: skip
    found, _ = understood(file, map="item=id,title=name,attr.colour=Farbe", replace=True)
    assert found[0] == {"type": "product", "item": "007", "title": "Tee", "attributes": {"colour": "grün"},
                        "replace": True}  # fmt: skip


def test_lines_of_an_order_become_one_purchase_wherever_they_lie(tmp_path):
    lines = ["o1,ann,tea,2,100", "o2,bob,cup,1,60", "o1,ann,pot,1,160", ",cem,cup,1,30", "o1,bob,cup,1,130"]
    rows = [f"{head},{1_700_000_000 + int(seconds)}" for head, _, seconds in (line.rpartition(",") for line in lines)]
    file = tmp_path / "o.csv"
    file.write_text("\n".join(["order_id,user,item,quantity,ts", *rows]))
    found, findings = understood(file)
    assert [(e["user"], [line["item"] for line in e.get("lines", [e])]) for e in found] == [
        ("cem", ["cup"]), ("bob", ["cup"]), ("ann", ["tea", "pot"]), ("bob", ["cup"]),
    ]  # fmt: skip
    assert [event["ts_ms"] for event in found] == [t * 1000 for t in (1_700_000_030, 1_700_000_060, 1_700_000_100,
                                                                      1_700_000_130)]  # fmt: skip
    assert (findings.n_rows, findings.n_events) == (5, 4)
    again, _ = understood(file)
    assert [event["event_id"] for event in again] == [event["event_id"] for event in found]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["1700000000"], 1_700_000_000_000), (["1700000000.5"], 1_700_000_000_500),
        (["1700000000123"], 1_700_000_000_123),
        (["1700000000123456"], 1_700_000_000_123), (["1700000000123456789"], 1_700_000_000_123),
        (["2023-11-14T22:13:20Z"], 1_700_000_000_000), (["2023-11-14 23:13:20 +0100"], 1_700_000_000_000),
        (["2023-11-14"], 1_699_920_000_000), (["20231114"], 1_699_920_000_000),
        (["14.11.2023 22:13"], 1_699_999_980_000),
        (["11/14/2023 10:13 PM"], 1_699_999_980_000), (["2023/11/14 22:13:20.5"], 1_700_000_000_500),
        (["01/02/2023", "14/11/2023"], 1_675_209_600_000),
    ],
)  # fmt: skip
def test_times_of_every_habit(tmp_path, times, expected):
    file = tmp_path / "e.csv"
    file.write_text("\n".join(["user,item,ts", *(f"u,a,{one}" for one in times)]))
    found, findings = understood(file)
    assert found[0]["ts_ms"] == expected, findings.refused


def test_a_date_that_may_be_two_days_is_not_guessed(tmp_path):
    file = tmp_path / "e.csv"
    file.write_text("user,item,ts\nu,a,03/04/2024\nu,b,05/04/2024\n")
    with pytest.raises(BadFile, match=r"'03/04/2024' do not say .* give --dates dmy or --dates mdy"):
        understood(file)
    assert understood(file, dates="dmy")[0][0]["ts_ms"] == 1_712_102_400_000
    assert understood(file, dates="mdy", zone="Europe/Berlin")[0][0]["ts_ms"] == 1_709_593_200_000 - 86_400_000


def test_a_word_that_is_no_type_is_named_and_can_be_said_or_skipped(tmp_path):
    file = tmp_path / "e.csv"
    file.write_text("user,item,ts,event\nu,a,1700000000,view\nu,a,1700000001,cart\nu,a,1700000002,zoom\n")
    found, findings = understood(file)
    assert [event["type"] for event in found] == ["view", "add_to_cart"]
    ((reason, one),) = findings.refused.items()
    assert ("'zoom' is no type of event" in reason, one.line) == (True, 4)
    assert [event["type"] for event in understood(file, kinds="zoom=click")[0]] == ["view", "add_to_cart", "click"]
    assert understood(file, kinds="zoom=skip")[1].left_aside == {"zoom": 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"map": "itme=item"}, r"there is no field itme; did you mean item\? Fields are"),
        ({"map": "item=itm"}, r"no column 'itm'; did you mean item\? The file has the columns "),
        ({"map": "item"}, r"--map: 'item' is not NAME=VALUE"),
        ({"map": "user=user,item=item"}, r"no column is the time: give --map ts=COLUMN"),
        ({"kind": "veiw"}, r"there is no event type 'veiw'; did you mean view\?"),
        ({"kinds": "a=b"}, r"there is no event type 'b'"), ({"zone": "Berlin"}, r"--zone Berlin is unknown"),
        ({"decimal": ";"}, r"--decimal is , or \."), ({"dates": "my"}, r"--dates is dmy, mdy or ymd"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_line_that_names_it(tmp_path, options, said):
    file = tmp_path / "e.csv"
    file.write_text(TEXT)
    with pytest.raises(BadFile, match=said):
        understood(file, **options)


def test_a_binary_file_is_none_of_what_can_be_read(tmp_path):
    file = tmp_path / "e.bin"
    file.write_bytes(bytes(range(1, 32)) * 40)
    with pytest.raises(BadFile, match=r"e\.bin cannot be read as CSV, Excel, Parquet, JSON or XML"):
        understood(file)

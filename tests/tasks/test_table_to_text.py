import json

import pytest

from ptune.errors import DataError
from ptune.tasks.layouts.table_to_text import read
from ptune.tasks.rows.splits import read as read_splits
from ptune.tasks.schema import DataConfig

TRIPLES = [
    ["Aarhus_Airport", "cityServed", '"Aarhus, Denmark"'],
    ["Aarhus_Airport", "runwayLength_(in_feet)", "2702.0"],
]
LINE = (
    "Aarhus Airport : cityServed : Aarhus, Denmark | Aarhus Airport : runwayLength_(in_feet) : "
    "2702.0"
)
XML = """<?xml version="1.0" ?>
<benchmark>
 <entries>
  <entry category="Airport" eid="Id1" size="2">
   <originaltripleset><otriple>Aarhus_Airport | city | Aarhus</otriple></originaltripleset>
   <modifiedtripleset>
    <mtriple>Aarhus_Airport | cityServed | "Aarhus, Denmark"</mtriple>
    <mtriple>Aarhus_Airport | runwayLength_(in_feet) | 2702.0</mtriple>
   </modifiedtripleset>
   <lex comment="good" lid="Id1">It serves Aarhus &amp; is long.</lex>
   <lex comment="good" lid="Id2">Aarhus Airport is long.</lex>
  </entry>
  <entry category="Artist" eid="Id2" size="1">
   <modifiedtripleset><mtriple> Ann |  genre | Jazz
   </mtriple></modifiedtripleset>
   <lex comment="good" lid="Id1">Ann plays jazz.</lex>
  </entry>
 </entries>
</benchmark>
"""
AIRPORT = {
    "table": LINE,
    "text": ["It serves Aarhus & is long.", "Aarhus Airport is long."],
    "category": "Airport",
    "part": "seen",
}
ARTIST = {
    "table": "Ann : genre : Jazz",
    "text": ["Ann plays jazz."],
    "category": "Artist",
    "part": "unseen",
}
LINES = [
    {"category": "Airport", "eid": "Id1", "size": 2, "triples": TRIPLES, "lex": AIRPORT["text"]},
    {
        "category": "Artist",
        "eid": "Id2",
        "size": 1,
        "triples": [["Ann", "genre", "Jazz"]],
        "lex": ARTIST["text"],
    },
]


def put(path, content, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding)
    return path


def lines(rows):
    return "\n".join(map(json.dumps, rows))


def test_e2e_as_text(tmp_path):
    path = put(
        tmp_path / "e2e.txt",
        "name : A | Type : pub||A is one . \nname : B||B || is .\n\nname : A | Type : pub||Pub "
        ".\nname : A | Type : pub||Pub .\n",
    )
    assert read(path, "e2e") == [
        {"table": "name : A | Type : pub", "text": ["A is one .", "Pub .", "Pub ."]},
        {"table": "name : B", "text": ["B || is ."]},
    ]


def test_a_byte_order_mark_is_no_part_of_a_table(tmp_path):
    for name, content in (("a.txt", "name : A||x"), ("a.csv", "mr,ref\nname[A],x\n")):
        assert read(put(tmp_path / name, content, "utf-8-sig"), "e2e") == [
            {"table": "name : A", "text": ["x"]}
        ]


@pytest.mark.parametrize("header", ["mr,ref", '"MR","ref"'])
def test_e2e_as_published(tmp_path, header):
    path = put(
        tmp_path / "trainset.csv",
        header + "\n"
        '"name[The Vaults], eatType[pub], priceRange[more than £30], customer rating[5 out of 5], '
        'near[Café Adriatic]",'
        '"The Vaults, near Café Adriatic, starts at £30."\n'
        '"name[Blue Spice], food[Fast food], priceRange[£20-25], area[city centre], '
        'familyFriendly[no]",Blue Spice\n"name[Blue Spice]",It is.\n',
    )
    assert read(path, "e2e") == [
        {
            "table": "name : The Vaults | Type : pub | price : more than £ 30 | customer rating : "
            "5 out of 5 | near : Café Adriatic",
            "text": ["The Vaults, near Café Adriatic, starts at £30."],
        },
        {
            "table": "name : Blue Spice | food : Fast food | price : £ 20 - 25 | area : city "
            "centre | family friendly : no",
            "text": ["Blue Spice"],
        },
        {"table": "name : Blue Spice", "text": ["It is."]},
    ]


def test_both_layouts_of_e2e_agree(data, tmp_path):
    """The published form of a real table, written from the text form, is read as that table
    again."""
    tables = [row["table"] for row in read(data / "table_to_text" / "e2e_src1_test.txt", "e2e")]
    names = {"Type": "eatType", "price": "priceRange", "family friendly": "familyFriendly"}
    pairs = [[pair.split(" : ") for pair in table.split(" | ")] for table in tables]
    written = [
        ", ".join(
            f"{names.get(k, k)}[{v.replace('£ ', '£').replace(' - ', '-')}]" for k, v in fields
        )
        for fields in pairs
    ]
    path = put(
        tmp_path / "testset_w_refs.csv",
        "mr,ref\n" + "".join(f'"{meaning}",x\n' for meaning in written),
    )
    assert [row["table"] for row in read(path, "e2e")] == tables


def test_webnlg_as_lines_xml_and_folder(tmp_path):
    assert read(put(tmp_path / "a.jsonl", lines(LINES)), "webnlg") == [AIRPORT, ARTIST]
    assert read(put(tmp_path / "a.xml", XML), "webnlg") == [AIRPORT, ARTIST]
    for number in (3, 1, 4, 2):
        put(
            tmp_path / "train" / f"{number}triples" / "Artist.xml",
            XML.replace("Ann plays", f"Ann {number} plays"),
        )
    rows = read(tmp_path / "train", "webnlg")
    assert rows == [
        {**AIRPORT, "text": AIRPORT["text"] * 4},
        {**ARTIST, "text": [f"Ann {number} plays jazz." for number in (1, 2, 3, 4)]},
    ]


def test_quotes_within_an_entity_stay(tmp_path):
    triples = [
        ["A", "mainIngredients", '"Squeezed" or "smashed"'],
        ["A", "timeInSpace", '"52.0"(minutes)'],
    ]
    (row,) = read(
        put(tmp_path / "a.jsonl", lines([{"category": "Food", "triples": triples, "lex": ["x"]}])),
        "webnlg",
    )
    assert (
        row["table"]
        == 'A : mainIngredients : "Squeezed" or "smashed" | A : timeInSpace : "52.0"(minutes)'
    )


def test_one_table_under_two_categories_is_one_row(tmp_path):
    path = put(
        tmp_path / "a.jsonl",
        lines([LINES[0], {**LINES[0], "category": "Artist", "lex": ["Third."]}]),
    )
    assert read(path, "webnlg") == [{**AIRPORT, "text": [*AIRPORT["text"], "Third."]}]


LATER = """<benchmark><entries>
<entry category="Artist" eid="Id1">
<modifiedtripleset><mtriple>Ann | genre | Jazz</mtriple></modifiedtripleset>
<lex comment="good" lang="en" lid="Id1">Ann plays jazz.</lex>
<lex comment="toFix" lang="en" lid="Id2">Ann plaing jaz.</lex>
<lex comment="" lang="ru" lid="Id3">Анна играет джаз.</lex>
<lex comment="good" lang="cy" lid="Id4">Mae Ann yn chwarae jazz.</lex>
</entry>
<entry category="Film" eid="Id2">
<modifiedtripleset><mtriple>It | director | Ann</mtriple></modifiedtripleset>
<lex comment="good" lang="en" lid="Id1">Ann directed it.</lex>
</entry>
<entry category="Film" eid="Id3">
<modifiedtripleset><mtriple>It | length | 2</mtriple></modifiedtripleset>
<lex comment="toFix" lang="en" lid="Id1">It lasts too.</lex>
</entry></entries></benchmark>"""


def test_webnlg_of_later_years(tmp_path):
    """Texts of other languages and those marked as faulty are no references; the training set of
    2020 has more categories."""
    path = put(tmp_path / "test.xml", LATER)
    assert read(path, "webnlg") == [
        {
            "table": "Ann : genre : Jazz",
            "text": ["Ann plays jazz."],
            "category": "Artist",
            "part": "seen",
        },
        {
            "table": "It : director : Ann",
            "text": ["Ann directed it."],
            "category": "Film",
            "part": "unseen",
        },
    ]
    assert [row["text"] for row in read(path, "webnlg", "ru")] == [["Анна играет джаз."]]
    with pytest.raises(DataError, match="holds no rows with a text marked lang='de'"):
        read(path, "webnlg", "de")
    with pytest.raises(DataError, match="JSON lines hold English texts, and 'ru' is asked for"):
        read(put(tmp_path / "a.jsonl", lines(LINES)), "webnlg", "ru")


BAD_ENTRIES = {
    "e2e": ("a.txt", b"a : b||It is b.\nno table\n\xff||x\n||y\nc : d||It is d.\n", 3, 2),
    "e2e table": ("a.csv", b'mr,ref\n"a[b]",x\nodd,y\n"c[d]",\n"e[f]",z\n', 2, 2),
    "webnlg": (
        "a.jsonl",
        lines([*LINES, {**LINES[0], "triples": 3}, {**LINES[0], "category": None}]).encode(),
        2,
        2,
    ),
    "dart": (
        "a.json",
        json.dumps(
            [
                {"tripleset": [["a", "b", "c"]], "annotations": [{"text": "x"}]},
                {"tripleset": [["a", "b"]], "annotations": [{"text": "x"}]},
                3,
            ]
        ).encode(),
        2,
        1,
    ),
}


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_a_bad_entry_costs_no_other(tmp_path, name):
    file, content, bad, good = BAD_ENTRIES[name]
    (tmp_path / file).write_bytes(content)
    skipped = []
    assert len(read(tmp_path / file, name.split()[0], None, skipped)) == good
    assert len(skipped) == bad and all(str(tmp_path) in message for message in skipped)
    with pytest.raises(DataError):
        read(tmp_path / file, name.split()[0])


def test_webnlgs_part_is_what_the_file_says(tmp_path):
    assert [
        row["part"] for row in read(put(tmp_path / "test_unseen.jsonl", lines(LINES)), "webnlg")
    ] == ["unseen", "unseen"]
    assert [row["part"] for row in read(put(tmp_path / "seen.xml", XML), "webnlg")] == [
        "seen",
        "seen",
    ]
    named = [{**LINES[0], "part": "unseen"}, LINES[1]]
    assert [row["part"] for row in read(put(tmp_path / "a.jsonl", lines(named)), "webnlg")] == [
        "unseen",
        "unseen",
    ]
    assert [
        row["part"] for row in read(put(tmp_path / "unforeseen.jsonl", lines(LINES)), "webnlg")
    ] == ["seen", "unseen"]


def test_dart(tmp_path):
    entries = [
        {
            "tripleset": [
                ["Mars Hill College", "JOINED", "1973"],
                ["Mars Hill College", "LOCATION", "Mars Hill"],
            ],
            "subtree_was_extended": False,
            "annotations": [
                {"source": "a", "text": "A school joined in 1973. "},
                {"source": "b", "text": "It did."},
            ],
        },
        {"tripleset": [["A_B", " is_a", '"c"']], "annotations": [{"source": "a", "text": "B."}]},
    ]
    assert read(put(tmp_path / "dart.json", entries), "dart") == [
        {
            "table": "Mars Hill College : joined : 1973 | Mars Hill College : location : Mars Hill",
            "text": ["A school joined in 1973.", "It did."],
        },
        {"table": "A B : is_a : c", "text": ["B."]},
    ]


@pytest.mark.parametrize(
    "form, name, content, message",
    [
        (
            "e2e",
            "a.txt",
            "name : A||x\nname : B\n",
            r"a.txt, line 2: table\|\|text is expected, and it is: 'name : B'",
        ),
        ("e2e", "a.txt", "name : A||x\n ||y\n", "a.txt, line 2: the table is empty"),
        ("e2e", "a.txt", "name : A|| \n", "a.txt, line 1: there is no text"),
        ("e2e", "a.txt", "\n", "holds no rows"),
        ("e2e", "a.csv", "mr,rf\nname[A],x\n", "a.csv has no column 'ref'. Did you mean 'rf'"),
        ("e2e", "a.csv", "MR\nname[A]\n", "no column 'ref'"),
        (
            "e2e",
            "a.csv",
            'mr,ref\nname[A],x\n"name[A], pub",x\n',
            r"a.csv, line 3: key\[value\], key\[value\], ... is expected, and it is: 'name\[A\], "
            r"pub'",
        ),
        ("e2e", "a.csv", "mr,ref\n,x\n", "line 2: the table is empty"),
        ("e2e", "a.csv", "mr,ref\nname[A],\n", "line 2: there is no text"),
        ("e2e", "a.csv", "mr,ref\nname[A]\n", "line 2: 1 fields"),
        ("e2e", "a.csv", 'mr,ref\n"name[A],x\n', "line 2: a quotation mark is .* is never closed"),
        (
            "webnlg",
            "a.jsonl",
            lines([LINES[0], {**LINES[1], "lex": []}]),
            "a.jsonl, line 2: there is no text",
        ),
        (
            "webnlg",
            "a.jsonl",
            lines([{**LINES[0], "lex": "x"}]),
            "line 1: a list of texts is expected",
        ),
        (
            "webnlg",
            "a.jsonl",
            lines([{**LINES[0], "lex": [1]}]),
            "line 1: a list of texts is expected",
        ),
        ("webnlg", "a.jsonl", lines([{**LINES[0], "triples": []}]), "line 1: the table is empty"),
        (
            "webnlg",
            "a.jsonl",
            lines([{**LINES[0], "triples": [["a", "b"]]}]),
            r"line 1: a triple is .* this is \['a', 'b'\]",
        ),
        (
            "webnlg",
            "a.jsonl",
            lines([{**LINES[0], "triples": [["a", "b", 1]]}]),
            "line 1: a triple is",
        ),
        (
            "webnlg",
            "a.jsonl",
            lines([{"category": "Food", "lex": ["x"]}]),
            "line 1: the list of triples is missing",
        ),
        (
            "webnlg",
            "a.jsonl",
            lines([{"triples": TRIPLES, "lex": ["x"]}]),
            "line 1: the category is missing",
        ),
        ("webnlg", "a.jsonl", "{\n", "a.jsonl, line 1: not valid JSON"),
        ("webnlg", "a.txt", "x", "no known format"),
        (
            "webnlg",
            "a.xml",
            XML.replace("|  genre | Jazz", "| Jazz"),
            r"a.xml, entry 2 \(Id2\): a triple is",
        ),
        (
            "webnlg",
            "a.xml",
            XML.replace("Ann plays jazz.", ""),
            r"entry 2 \(Id2\): there is no text",
        ),
        (
            "webnlg",
            "a.xml",
            XML.replace("mtriple> Ann", "otriple> Ann").replace("\n   </mtriple>", "</otriple>"),
            r"entry 2 \(Id2\): the table is empty",
        ),
        (
            "webnlg",
            "a.xml",
            XML.replace('category="Artist"', ""),
            r"entry 2 \(Id2\): the category is missing",
        ),
        (
            "webnlg",
            "a.xml",
            XML.replace("</entries>", ""),
            "a.xml is not valid XML: mismatched tag: line 19",
        ),
        (
            "webnlg",
            "a.xml",
            XML.replace(" ?>", ' encoding="gb2312"?>'),
            "a.xml is not valid XML: multi-byte",
        ),
        ("webnlg", "a.xml", "<benchmark/>", "no rows"),
        (
            "webnlg",
            "a.xml",
            XML.replace("<benchmark>", '<!DOCTYPE b [<!ENTITY e "eee">]><benchmark>'),
            "a.xml holds a document type or entities",
        ),
        (
            "webnlg",
            "a.xml",
            XML.replace("<benchmark>", '<!DOCTYPE b SYSTEM "file:///etc/passwd"><benchmark>'),
            "a document type or entities",
        ),
        ("dart", "a.json", "[{]", "a.json is not valid JSON: .*line 1"),
        ("dart", "a.json", {}, "not DART's layout"),
        ("dart", "a.json", [], "holds no rows"),
        ("dart", "a.json", [{"tripleset": TRIPLES}], "a.json, entry 1: an object with the fields"),
        ("dart", "a.json", [1], "entry 1: an object"),
        (
            "dart",
            "a.json",
            [{"annotations": [{"text": "x"}]}],
            "entry 1: the list of triples is missing",
        ),
        (
            "dart",
            "a.json",
            [{"tripleset": TRIPLES, "annotations": [{"source": "x"}]}],
            "entry 1: a list of texts is expected",
        ),
        (
            "dart",
            "a.json",
            [{"tripleset": TRIPLES, "annotations": []}],
            "entry 1: there is no text",
        ),
        (
            "dart",
            "a.json",
            [{"tripleset": [], "annotations": [{"text": "x"}]}],
            "entry 1: the table is empty",
        ),
    ],
)
def test_bad_files(tmp_path, form, name, content, message):
    with pytest.raises(DataError, match=message):
        read(put(tmp_path / name, content), form)


def test_unknown_form_and_unreadable_files(tmp_path):
    with pytest.raises(
        DataError, match="no form 'webnlg2020' of table-to-text data. Did you mean 'webnlg'"
    ):
        read(tmp_path / "a.txt", "webnlg2020")
    for form, name in (
        ("e2e", "a.txt"),
        ("e2e", "a.csv"),
        ("webnlg", "a.jsonl"),
        ("webnlg", "a.xml"),
        ("dart", "a.json"),
    ):
        with pytest.raises(DataError, match=f"{name} cannot be read: No such file"):
            read(tmp_path / name, form)
    with pytest.raises(DataError, match="a folder without .xml or .jsonl files"):
        read(tmp_path, "webnlg")
    put(tmp_path / "latin.txt", "name : Café||x", "latin-1")
    with pytest.raises(DataError, match="latin.txt is not UTF-8 text"):
        read(tmp_path / "latin.txt", "e2e")


# Tables and texts of the real files; WebNLG's also by part.
REAL = {
    "e2e_src1_train.txt": (4862, 42061),
    "e2e_src1_valid.txt": (547, 4672),
    "e2e_src1_test.txt": (630, 4693),
    "webnlg2017_train.jsonl": (6893, 18102),
    "webnlg2017_dev.jsonl": (871, 2268),
    "webnlg2017_test.jsonl": (1862, 4928),
    "webnlg2017_test_unseen.jsonl": (891, 2433),
}
PARTS = {
    "webnlg2017_train.jsonl": {"seen": (6893, 18102)},
    "webnlg2017_dev.jsonl": {"seen": (871, 2268)},
    "webnlg2017_test.jsonl": {"seen": (971, 2495), "unseen": (891, 2433)},
    "webnlg2017_test_unseen.jsonl": {"unseen": (891, 2433)},
}


def counts(rows):
    return len(rows), sum(len(row["text"]) for row in rows)


@pytest.mark.parametrize("name", REAL)
def test_counts_of_real_files(data, name):
    rows = read(data / "table_to_text" / name, name.split("_")[0].removesuffix("2017"))
    assert counts(rows) == REAL[name] and len({row["table"] for row in rows}) == len(rows)
    parts = {row["part"] for row in rows if "part" in row}
    assert {
        part: counts([row for row in rows if row["part"] == part]) for part in parts
    } == PARTS.get(name, {})


def test_webnlg_entries_published_without_texts_have_a_table_alone(tmp_path):
    entry = (
        '<entry category="Artist" eid="Id{0}" size="1"><modifiedtripleset>'
        "<mtriple>Ann{0} | plays | Jazz</mtriple></modifiedtripleset>{1}</entry>"
    )
    texts = ("", "", '<lex comment="good" lid="Id1">Ann plays jazz.</lex>')
    entries = "".join(entry.format(number, text) for number, text in enumerate(texts))
    path = put(tmp_path / "a.xml", f"<benchmark><entries>{entries}</entries></benchmark>")
    rows = read(path, "webnlg")
    assert [row.get("text") for row in rows] == [None, None, ["Ann plays jazz."]]
    assert all("Ann" in row["table"] for row in rows)
    line = {key: value for key, value in LINES[0].items() if key != "lex"}
    assert "text" not in read(put(tmp_path / "a.jsonl", lines([line])), "webnlg")[0]
    data = DataConfig(form="webnlg", train=path)
    with pytest.raises(DataError, match="has no field 'text'"):
        read_splits(data, "text")

"""Derive the built-in fact table from the World Factbook (CC0 JSON by country).

    python scripts/make_facts.py FACTBOOK_FOLDER src/ptune/builtin/facts

FACTBOOK_FOLDER holds <region>/<country>.json as in https://github.com/factbook/factbook.json. The
output has LAMA's T-REx layout: relations.jsonl and original/<relation>/{train,dev,test}.jsonl,
split by country (45 : 15 : 40), so that no country of the test rows is in the training rows of any
relation. Answers are single words, as in LAMA; what the Factbook says in several words ("Kuwait
City") is left out and counted.
"""

import hashlib
import html
import json
import pathlib
import re
import sys
import unicodedata
from collections import defaultdict

NAMES = {  # where the Factbook's short name is missing, abbreviated or in two parts
    "cf": "Republic of the Congo",
    "cg": "Democratic Republic of the Congo",
    "ct": "Central African Republic",
    "dr": "Dominican Republic",
    "fm": "Micronesia",
    "ae": "United Arab Emirates",
    "vt": "Vatican City",
    "fk": "Falkland Islands",
    "gz": "Gaza Strip",
    "ck": "Cocos Islands",
    "sv": "Svalbard",
    "ic": "Iceland",
    "bm": "Burma",
    "sh": "Saint Helena",
}
LEFT_OUT = {
    "ee",
    "um",
    "oo",
    "xo",
    "xq",
    "zh",
    "zn",
    "xx",
    "at",
    "cr",
    "ip",
    "pf",
    "pg",
    "ay",
    "bv",
    "fs",
    "hm",
    "sx",
    "wq",
    "jn",
    "io",
    "ax",
    "dx",
    "tb",
    "bq",
}  # oceans, unions, bases and uninhabited islands
ALIASES = {
    "USA": "United States",
    "US": "United States",
    "UK": "United Kingdom",
    "UAE": "United Arab Emirates",
    "NZ": "New Zealand",
    "Great Britain": "United Kingdom",
    "the Soviet Union": "Soviet Union",
    "the UK": "United Kingdom",
    "the US": "United States",
    "the Netherlands": "Netherlands",
    "Czech Republic": "Czechia",
    "Burma": "Burma",
}
CONTINENTS = {
    "Africa": "Africa",
    "Europe": "Europe",
    "Asia": "Asia",
    "Southeast Asia": "Asia",
    "Middle East": "Asia",
    "Oceania": "Oceania",
    "South America": "America",
    "North America": "America",
    "Central America and the Caribbean": "America",
}
CURRENCIES = {  # the Factbook names currencies in the plural, and some by a long official name
    "african": "franc",
    "africaine": "franc",
    "pacifique": "franc",
    "loti": "loti",
    "maloti": "loti",
    "emalangeni": "lilangeni",
    "koruny": "koruna",
    "leva": "lev",
    "lei": "leu",
    "leke": "lek",
    "kronur": "krona",
    "kronor": "krona",
    "kroner": "krone",
    "zlotych": "zloty",
    "markas": "mark",
    "meticais": "metical",
    "colones": "colon",
    "quetzales": "quetzal",
    "shekels": "shekel",
    "sol": "sol",
    "leones": "leone",
    "reals": "real",
    "laris": "lari",
    "guilders/florins": "guilder",
    "guilders": "guilder",
    "togrog/tugriks": "tugrik",
    "cedis": "cedi",
    "afghanis": "afghani",
}
RELIGIONS = [
    "Catholic",
    "Protestant",
    "Orthodox",
    "Muslim",
    "Hindu",
    "Buddhist",
    "Jewish",
    "Anglican",
    "Evangelical",
    "Lutheran",
    "Christian",
    "Baptist",
    "Methodist",
    "Islam",
]
LANGUAGES = re.compile(
    r"\b(English|French|Spanish|Portuguese|Arabic|German|Dutch|Italian|Russian|Danish|[A-Z][a-z]+)\b"
)
LANGUAGE_NAMES = {
    "Indonesia": "Indonesian",
    "Pisin": "Tok Pisin",
    "Assembly": "",
    "Melayu": "Malay",
    "Malaysia": "Malay",
}
CLIMATES = [
    "tropical",
    "temperate",
    "desert",
    "arid",
    "mediterranean",
    "semiarid",
    "subtropical",
    "continental",
    "arctic",
    "equatorial",
    "marine",
    "maritime",
    "monsoon",
]
HEADS = ["President", "King", "Queen", "Sultan", "Amir", "Emperor", "Prince", "Pope", "Duke"]


def text(country: dict, *path: str) -> str:
    """The plain text under a path of keys, "" where there is none; HTML, footnotes and notes
    removed."""
    node = country
    for key in path:
        node = node.get(key, {}) if isinstance(node, dict) else {}
    raw = node.get("text", "") if isinstance(node, dict) else ""
    raw = html.unescape(re.sub(r"<[^>]+>", " ", str(raw)))
    return unicodedata.normalize("NFKD", raw).encode("ascii", "ignore").decode().strip()


def name_of(code: str, country: dict) -> str:
    name = NAMES.get(code) or text(country, "Government", "Country name", "conventional short form")
    return re.sub(r"^The ", "", re.sub(r"\s*\(.*?\)", "", name)).split(",")[0].strip()


def partner(listing: str) -> str:
    match = re.match(r"(?:almost entirely )?([A-Z][A-Za-z' .-]+?)\s*(?:\d|,|\(|$)", listing)
    return ALIASES.get(match[1], match[1]) if match else ""


def capital(country: dict) -> str:
    return re.split(r"\s*[(;,]| in Romanian|note", text(country, "Government", "Capital", "name"))[
        0
    ].strip()


def official_language(country: dict) -> str:
    listing = text(country, "People and Society", "Languages", "Languages") or text(
        country, "People and Society", "Languages"
    )
    for part in listing.split(","):
        if (
            "official" in part.split(";")[0]
            and "unofficial" not in part
            and (match := LANGUAGES.search(part.split("(official")[0]))
        ):
            words = LANGUAGES.findall(
                re.sub(r"Afghan|Bokmal|Castilian|Standard|Modern|Mandarin", "", part.split("(")[0])
            )
            return LANGUAGE_NAMES.get((words or [match[1]])[-1], (words or [match[1]])[-1])
    return ""


def currency(country: dict) -> str:
    listing = text(country, "Economy", "Exchange rates", "Currency").lower()
    words = re.split(r"\s*\(|\s+per us| or ", listing)[0].split()
    if not words:
        return ""
    word = next((w for w in words if w in CURRENCIES), words[-1])
    return CURRENCIES.get(word) or (word[:-1] if word.endswith("s") else word)


def religion(country: dict) -> str:
    listing = text(country, "People and Society", "Religions")
    matches = [(start, r) for r in RELIGIONS if (start := listing.find(r)) >= 0]
    word = min(matches)[1] if matches else ""
    return {"Islam": "Muslim"}.get(word, word)


def neighbours(country: dict) -> list[str]:
    listing = text(country, "Geography", "Land boundaries", "border countries")
    names = [re.sub(r"\s*\(.*?\)|\s+[\d.,]+ km.*", "", part).strip() for part in listing.split(";")]
    return [ALIASES.get(n, n) for n in names if n]


def government(country: dict) -> str:
    listing = text(country, "Government", "Government type").lower()
    kinds = [
        "monarchy",
        "territory",
        "collectivity",
        "republic",
        "democracy",
        "sultanate",
        "emirate",
        "dictatorship",
    ]
    matches = [kind for kind in kinds if kind in listing]
    return matches[0] if matches else ""


def independence(country: dict) -> str:
    match = re.search(
        r"\bfrom (?:the )?((?:[A-Z][A-Za-z]*)(?: [A-Z][A-Za-z]*)*)\b(?![- "
        r"](?:admin|mand|trus|prot))",
        text(country, "Government", "Independence"),
    )
    name = match[1] if match else ""
    return (
        "" if name in ("League", "New", "South") else ALIASES.get(name, name)
    )  # first words of longer names


def demonym(country: dict) -> str:
    return re.split(
        r"\s*[,;(]| or ", text(country, "People and Society", "Nationality", "adjective")
    )[0]


def commodity(country: dict) -> str:
    name = re.split(r"[,(;\d]", text(country, "Economy", "Exports - commodities"))[0].strip()
    return {
        "crude petroleum": "petroleum",
        "refined petroleum": "petroleum",
        "natural gas": "gas",
        "copper ore": "copper",
        "refined copper": "copper",
        "raw copper": "copper",
        "iron ore": "iron",
        "gas turbines": "turbines",
        "raw sugar": "sugar",
        "packaged medicine": "medicine",
    }.get(name, name)


def climate(country: dict) -> str:
    listing = text(country, "Geography", "Climate").lower()
    matches = [(start, len(c), c) for c in CLIMATES if (start := listing.find(c)) >= 0]
    return max(matches, key=lambda f: (-f[0], f[1]))[2] if matches else ""


def head_of_state(country: dict) -> str:
    listing = text(country, "Government", "Executive branch", "chief of state")
    matches = [(start, h) for h in HEADS if (start := listing.find(h)) >= 0]
    return min(matches)[1].lower().replace("amir", "emir") if matches else ""


# relation, label, type, wordings: the first is the manual prompt (LAMA's own where LAMA has the
# relation); all five are
# tried on dev. None of them is a wording of scripts/make_sentences.py.
RELATIONS = [
    (
        "P36",
        "capital",
        "1-1",
        [
            "The capital of [X] is [Y] .",
            "[X] is ruled from [Y] .",
            "[X] has its capital at [Y] .",
            "[X]'s seat of power is [Y] .",
            "Which city is the capital of [X] ? [Y] .",
        ],
    ),
    (
        "P1376",
        "capital of",
        "1-1",
        [
            "[X] is the capital of [Y] .",
            "[X] is where [Y] is governed from .",
            "[X], capital of [Y] .",
            "The capital [X] belongs to [Y] .",
            "Of which country is [X] the capital ? [Y] .",
        ],
    ),
    (
        "P30",
        "continent",
        "N-1",
        [
            "[X] is located in [Y] .",
            "[X] lies in [Y] .",
            "The continent of [X] is [Y] .",
            "[X], [Y] .",
            "On which continent is [X] ? [Y] .",
        ],
    ),
    (
        "P37",
        "official language",
        "N-1",
        [
            "The official language of [X] is [Y] .",
            "In [X] they speak [Y] .",
            "[X] uses [Y] .",
            "[Y] is spoken in [X] .",
            "What language does [X] use ? [Y] .",
        ],
    ),
    (
        "P38",
        "currency",
        "N-1",
        [
            "The currency of [X] is the [Y] .",
            "In [X] you pay with the [Y] .",
            "[X] uses the [Y] .",
            "The money of [X] is the [Y] .",
            "What is the currency of [X] ? The [Y] .",
        ],
    ),
    (
        "P140",
        "religion",
        "N-1",
        [
            "[X] is affiliated with the [Y] religion .",
            "[X] is a [Y] country .",
            "The religion of [X] is [Y] .",
            "[X] believes in [Y] .",
            "What is the faith of [X] ? [Y] .",
        ],
    ),
    (
        "P47",
        "shares border with",
        "N-M",
        [
            "[X] shares border with [Y] .",
            "[X] is next to [Y] .",
            "[X] adjoins [Y] .",
            "[Y] lies beside [X] .",
            "Which country is beside [X] ? [Y] .",
        ],
    ),
    (
        "P122",
        "basic form of government",
        "N-1",
        [
            "The government of [X] is a [Y] .",
            "[X] is a [Y] .",
            "[X] has the government of a [Y] .",
            "[X], a [Y] .",
            "What kind of state is [X] ? A [Y] .",
        ],
    ),
    (
        "P1549",
        "demonym",
        "N-1",
        [
            "A person from [X] is [Y] .",
            "Someone born in [X] is [Y] .",
            "[X], [Y] .",
            "The adjective for [X] is [Y] .",
            "What do you call someone from [X] ? [Y] .",
        ],
    ),
    (
        "P807",
        "independence from",
        "N-1",
        [
            "[X] separated from [Y] .",
            "[X] left [Y] .",
            "[X] was a colony of [Y] .",
            "[X] broke away from [Y] .",
            "From whom did [X] become free ? From [Y] .",
        ],
    ),
    (
        "export-partner",
        "main export partner",
        "N-1",
        [
            "[X] trades with [Y] .",
            "[X] exports to [Y] .",
            "The main trading partner of [X] is [Y] .",
            "[X] delivers to [Y] .",
            "Where do the exports of [X] go ? To [Y] .",
        ],
    ),
    (
        "export-commodity",
        "main export commodity",
        "N-1",
        [
            "[X] exports [Y] .",
            "[X] produces [Y] .",
            "The main product of [X] is [Y] .",
            "[X] is known for [Y] .",
            "What does [X] sell ? [Y] .",
        ],
    ),
    (
        "climate",
        "climate",
        "N-1",
        [
            "The climate of [X] is [Y] .",
            "[X] is [Y] .",
            "[X] has [Y] weather .",
            "It is [Y] in [X] .",
            "What is the weather like in [X] ? [Y] .",
        ],
    ),
    (
        "head-of-state",
        "title of the head of state",
        "N-1",
        [
            "The leader of [X] is the [Y] .",
            "[X] has a [Y] .",
            "[X] is ruled by a [Y] .",
            "The [Y] of [X] .",
            "Who leads [X] ? The [Y] .",
        ],
    ),
]


def facts(code: str, country: dict) -> dict[str, list[tuple[str, str]]]:
    """(subject, answer) pairs of one country by relation; an answer may be empty or of several
    words."""
    name, city = name_of(code, country), capital(country)
    region = text(country, "Geography", "Map references")
    return {
        "P36": [(name, city)],
        "P1376": [(city, name)],
        "P30": [(name, CONTINENTS.get(region, ""))],
        "P37": [(name, official_language(country))],
        "P38": [(name, currency(country))],
        "P140": [(name, religion(country))],
        "P47": [(name, n) for n in neighbours(country)],
        "P122": [(name, government(country))],
        "P1549": [(name, demonym(country))],
        "P807": [(name, independence(country))],
        "export-partner": [(name, partner(text(country, "Economy", "Exports - partners")))],
        "export-commodity": [(name, commodity(country))],
        "climate": [(name, climate(country))],
        "head-of-state": [(name, head_of_state(country))],
    }


def split_of(code: str) -> str:
    share = int(hashlib.sha256(code.encode()).hexdigest(), 16) % 100
    return "train" if share < 45 else "dev" if share < 60 else "test"


def main(source: pathlib.Path, out: pathlib.Path) -> None:
    rows, left_out = defaultdict(list), defaultdict(int)
    for path in sorted(source.glob("*/*.json"), key=lambda p: p.stem):
        country = json.loads(path.read_text(encoding="utf-8"))
        if path.stem in LEFT_OUT or "Geography" not in country or not name_of(path.stem, country):
            continue
        for relation, pairs in facts(path.stem, country).items():
            for subject, answer in dict.fromkeys(pairs):
                if not subject or not answer or answer in ("none", "NA"):
                    continue
                if not re.fullmatch(r"[A-Za-z]+", answer):
                    left_out[relation] += 1
                    continue
                rows[relation, split_of(path.stem)].append(
                    {"sub_label": subject, "obj_label": answer}
                )
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "relations.jsonl", "w", encoding="utf-8") as stream:
        for relation, label, kind, wordings in RELATIONS:
            line = {
                "relation": relation,
                "template": wordings[0],
                "label": label,
                "type": kind,
                "wordings": wordings,
            }
            stream.write(json.dumps(line) + "\n")
    for relation, *_ in RELATIONS:
        folder = out / "original" / relation
        folder.mkdir(parents=True, exist_ok=True)
        for split in ("train", "dev", "test"):
            lines = (json.dumps(row) + "\n" for row in rows[relation, split])
            (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        counts = [len(rows[relation, s]) for s in ("train", "dev", "test")]
        print(
            f"{relation:17} train, dev, test {counts}; {left_out[relation]} of several words left "
            "out"
        )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))

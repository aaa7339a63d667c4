"""Write the rows of examples/countries.yaml from the built-in facts: a country's values, and what is
said of them in each of four wordings.

    python scripts/make_country_texts.py src/ptune/builtin/facts examples/countries [SWAPPED.jsonl]

The countries of train, dev and test are those of the fact table, so none stands in two files. SWAPPED.jsonl gets
the test countries, each with all values of the next one: what an LM knows of a country is wrong there.
"""

import json
import pathlib
import sys

FIELDS = {"P36": "capital", "P30": "continent", "P37": "language", "P38": "currency"}
WORDINGS = (
    "{country} lies in {continent}. The capital is {capital}, people speak {language}, and money "
    "there is the {currency}.",
    "{country}, a country of {continent} with {capital} as its seat of government, speaks {language} "
    "and pays with the {currency}.",
    "In {capital}, the capital of {country}, one speaks {language} and pays with the {currency}. The "
    "country belongs to {continent}.",
    "Whoever travels to {country} in {continent} speaks {language}, pays with the {currency}, and "
    "finds the government in {capital}.",
)


def rows(facts: pathlib.Path, split: str) -> list[dict[str, object]]:
    """The countries of which all is known."""
    table: dict[str, dict[str, str]] = {}
    for relation, field in FIELDS.items():
        path = facts / "original" / relation / f"{split}.jsonl"
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            table.setdefault(row["sub_label"], {})[field] = row["obj_label"]
    whole = ({"country": name, **table[name]} for name in sorted(table))
    return [
        {**row, "text": [wording.format(**row) for wording in WORDINGS]}
        for row in whole
        if len(row) == len(FIELDS) + 1
    ]


def swapped(facts: pathlib.Path) -> list[dict[str, object]]:
    """The test countries with the values of others."""
    table = rows(facts, "test")
    mixed = [
        {**after, "country": row["country"]} for row, after in zip(table, table[1:] + table[:1])
    ]
    return [{**row, "text": [wording.format(**row) for wording in WORDINGS]} for row in mixed]


def main(facts: pathlib.Path, out: pathlib.Path, other: pathlib.Path | None = None) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for split in ("train", "dev", "test"):
        written = rows(facts, split)
        lines = [json.dumps(row) + "\n" for row in written]
        (out / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{split}: {len(written)} countries")
    if other is not None:
        lines = [json.dumps(row) + "\n" for row in swapped(facts)]
        other.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*map(pathlib.Path, sys.argv[1:]))

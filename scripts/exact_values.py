"""How many of a row's values stand in the text that was written for it, letter for letter.

ptune generate PROMPT --data ROWS.jsonl --out TEXTS.jsonl
python scripts/exact_values.py TEXTS.jsonl FIELD...
"""

import json
import pathlib
import sys


def counts(rows: list[dict], fields: list[str]) -> tuple[dict[str, int], int]:
    """Of each field the number of rows whose text has its value, and of rows whose text has all."""
    written = [
        {field for field in fields if str(row[field]) in row["ptune"]["text"]} for row in rows
    ]
    return {field: sum(field in one for one in written) for field in fields}, sum(
        len(one) == len(fields) for one in written
    )


def main(path: pathlib.Path, fields: list[str]) -> None:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    of_field, whole = counts(rows, fields)
    for field, count in of_field.items():
        print(f"{field}: {count} of {len(rows)}")
    share = sum(of_field.values()) / (len(rows) * len(fields))
    print(f"values {share:.3f}, rows with all of them {whole / len(rows):.3f}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]), sys.argv[2:])

"""The script that answers a million rows sees what is wrong with answers."""

import pytest
from scripts_kit import load_script


def test_a_lost_row_another_answer_and_other_bytes_are_seen_in_answers_to_a_million(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow, which writes the rows, is missing")
    from pyarrow import parquet

    module = load_script("million_rows")
    module.make_rows(tmp_path / "rows", 40, files=2)
    tables = [parquet.read_table(tmp_path / "rows" / f"rows-{n}.parquet") for n in range(2)]
    expected = {name: f"of {name}" for name in module.countries()}
    assert len(expected) == 231

    def answered(name, last=40, answers=expected):
        (tmp_path / name).mkdir()
        for number, table in enumerate(tables):
            part = table.slice(0, last - 20 * number)
            given = [answers[country] for country in part["country"].to_pylist()]
            path = tmp_path / name / f"part-{number:06d}.parquet"
            parquet.write_table(part.append_column("ptune_prediction", pyarrow.array(given)), path)
        return tmp_path / name

    whole = answered("whole")
    assert module.faults(40, whole, answered("same"), expected) == []
    assert len(module.faults(40, whole, answered("lost", 39), expected)) == 2
    first = tables[0]["country"][0].as_py()
    other = answered("other", answers={**expected, first: "another"})
    assert module.faults(40, whole, other, expected) == ["the bytes differ"]
    assert module.faults(40, other, other, expected) == [f"another answer than by itself: {first}"]
    assert "each once" in module.faults(41, whole, whole, expected)[0]

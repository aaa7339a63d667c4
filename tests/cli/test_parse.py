"""Options whose values have the wrong type."""

import pytest

from ptune.cli.main import main


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["train", "trec", "--train.steps", "a_b"], "--train.steps takes a whole number or None"),
        (["train", "trec", "--train.steps=a_b"], "--train.steps takes a whole number or None"),
        (["predict", "x", "--at_least", "a_b"], "--at-least takes a number or None"),
        (["serve", "--port", "a_b"], "--port takes a whole number"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_in_one_sentence(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"ptune: {said}, and it is 'a_b'. Its help: ptune {arguments[0]}")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("given", [["body=text"], ["{body}: text"], ["{body", "text", "x"]])
def test_what_is_no_pair_is_refused_in_one_sentence(given, capsys):
    with pytest.raises(SystemExit):
        main(["predict", "x", "--data", "rows.csv", "--rename", *given])
    errors = capsys.readouterr().err
    assert errors == (
        "ptune: --rename takes pairs with spaces between, each a name and its value. Its help: "
        "ptune predict --help\n"
    )


@pytest.mark.parametrize("value", [["{urgent:", "5}"], ["urgent=5"], ["balance"]])
def test_what_is_no_label_with_a_weight_is_refused_in_one_sentence(value, capsys):
    with pytest.raises(SystemExit):
        main(["train", "mr", "--train.class-weights", *value])
    errors = capsys.readouterr().err
    assert errors == (
        "ptune: --train.class-weights takes pairs with spaces between, each a name and its value. "
        "Its help: ptune train mr --help\n"
    )

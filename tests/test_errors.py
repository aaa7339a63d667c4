"""What errors say."""

from ptune import errors


def test_the_tree_in_the_docstring_is_the_tree():
    classes = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    assert classes == {errors.PtuneError, *errors.PtuneError.__subclasses__()}
    assert all(kind.__name__ in errors.__doc__ for kind in classes)


def test_the_nearest_name_or_all_of_them():
    assert errors.nearest("shortn", ["shorten", "lower"]) == "Did you mean 'shorten'?"
    assert errors.nearest("x", ["shorten", "lower"]) == "Known: 'shorten', 'lower'."
    assert errors.nearest("Team", ["id", "Zust\u00e4ndiges Team"]).startswith("Did you mean 'Zus")
    assert errors.nearest("shorten, lower", ["shorten", "lower"]).startswith("These are several")
    assert errors.nearest("shorten,x", ["shorten", "lower"]) == "Did you mean 'shorten'?"
    assert errors.nearest("x", []) == "Known: none."
    assert errors.nearest("??", map(str, range(30))).endswith("'19', ...")

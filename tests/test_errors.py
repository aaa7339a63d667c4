"""What errors say."""

from ptune import errors


def test_the_tree_in_the_docstring_is_the_tree():
    classes = {
        own for own in vars(errors).values() if isinstance(own, type) and issubclass(own, Exception)
    }
    assert classes == {errors.PtuneError, *errors.PtuneError.__subclasses__()}
    assert all(own.__name__ in errors.__doc__ for own in classes)


def test_the_nearest_name_or_all_of_them():
    assert errors.nearest("shortn", ["shorten", "lower"]) == "Did you mean 'shorten'?"
    assert errors.nearest("x", ["shorten", "lower"]) == "Known: 'shorten', 'lower'."
    assert errors.nearest("x", []) == "Known: none."
    assert errors.nearest("??", map(str, range(30))).endswith("'19', ...")

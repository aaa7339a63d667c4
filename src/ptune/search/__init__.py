"""``ptune search``: prompts and label words that a program looks for. ``common/`` is the house of
every search, the other packages propose candidates.

It stands beside ``selection``, above ``tasks`` and ``training``, and below the commands that use
it."""

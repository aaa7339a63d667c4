"""Documents as prompts: each is read once, its prefix is trained to answer as the LM does with the
whole document in its context, and is asked as often as one likes (``ptune distil``, ``ptune
ask``)."""

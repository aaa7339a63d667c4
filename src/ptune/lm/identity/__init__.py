"""Which LM this is: a record of all of its weights."""

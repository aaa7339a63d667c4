"""Results for people: one page for each kind of result, in one design."""

"""Tables of many files: which files they are, their rows in pieces, and the answers to a piece as a
file of the same form."""

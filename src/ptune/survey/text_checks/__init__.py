"""The texts of rows: how long they are, in which script, what an LM cannot read of them, and
which of them stand twice."""

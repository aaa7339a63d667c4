"""Rows in, answers out: in batches, equal rows once, into files that can be gone on with."""

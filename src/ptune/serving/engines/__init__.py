"""Rows that wait, whose turn it is, and how the LM runs them."""

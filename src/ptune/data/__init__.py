"""Rows in and rows out: tables, JSON in its forms and YAML are recognised and read exactly, answers
are written beside their rows."""

"""Files of rows by their format: tables, and JSON."""

"""``ptune check``: what files of rows hold, and the YAML that reads them."""

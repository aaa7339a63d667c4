"""The command line: options are read, resolved, and handed on."""

"""A frozen LM: loading it, finding out what it can do, running a batch, writing text."""

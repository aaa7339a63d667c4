"""The addresses that the server answers, one file for each kind of request."""

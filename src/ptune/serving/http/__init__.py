"""Requests and answers: routes, what they take, and the page."""

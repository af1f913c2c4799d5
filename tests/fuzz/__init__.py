"""Hostile messages, as many as there is time for: `python -m tests.fuzz`."""

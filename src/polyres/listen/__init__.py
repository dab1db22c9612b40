"""Blind listening tests: build studies, serve them, and analyse the ratings."""

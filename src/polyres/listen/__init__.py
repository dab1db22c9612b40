"""Blind listening tests: studies, the pages they are taken on, and what their ratings say."""

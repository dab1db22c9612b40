"""Compositions of blocks, and their weights."""

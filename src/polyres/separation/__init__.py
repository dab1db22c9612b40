"""Separation: models, weights, and songs into stems."""

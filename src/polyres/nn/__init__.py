"""Blocks that models are composed of."""

"""Scores of models on songs with known stems."""

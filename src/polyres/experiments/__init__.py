"""Experiments: models against tracks and metrics, and studies of many runs, as rows of results."""

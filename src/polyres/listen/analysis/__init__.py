"""Ratings: screening, statistics and reports."""

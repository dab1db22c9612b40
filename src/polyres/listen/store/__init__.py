"""Ratings: how they are kept, checked and exported."""

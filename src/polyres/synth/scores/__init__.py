"""Scores: composed, or read from MIDI files."""

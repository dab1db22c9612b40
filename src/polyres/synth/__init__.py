"""Synthesise songs with known stems."""

"""Tracker modules: their sound, and what their instruments are."""

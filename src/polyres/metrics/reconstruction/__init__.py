"""Metrics of reconstructed audio."""

"""Enhancers of latents and mel spectra, and the sweep that compares them."""

"""Codecs: waveforms to few numbers and back, and what makes the result better."""

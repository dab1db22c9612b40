"""Instruments: sound fonts, synthesisers and drum machines."""

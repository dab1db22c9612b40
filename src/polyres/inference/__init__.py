"""Separation in memory and from file to file, in bounded memory."""

"""Codecs made of stages."""

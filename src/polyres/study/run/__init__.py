"""Runs of a study, carried out and summed up."""

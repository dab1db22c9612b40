"""Figures and tables, as papers and reports share them."""

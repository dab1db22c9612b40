"""Screen listeners, test differences and write reports."""

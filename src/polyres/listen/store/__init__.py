"""Store, check and export ratings."""

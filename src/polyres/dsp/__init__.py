"""Signal processing: transforms, filters, levels, phase."""

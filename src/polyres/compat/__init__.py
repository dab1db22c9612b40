"""Stand-ins for other programs: their flags, names and files on polyres' engine."""

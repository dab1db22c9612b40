"""Made songs: MIDI scores played by an instrument bank, a syllable singer, and loop tracks."""

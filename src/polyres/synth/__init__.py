"""Made songs with known stems."""

"""The polyres command: parses, calls the floors below, prints."""

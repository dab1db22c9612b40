"""The web server of a listening test."""

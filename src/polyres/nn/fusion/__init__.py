"""Ways to fuse resolutions."""

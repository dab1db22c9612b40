"""Sound in and out, and the songs to train on."""

"""Many files in one command: which are taken, where results go, and what is done already."""

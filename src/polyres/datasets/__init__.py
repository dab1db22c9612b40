"""Songs with stems: found, checked, cut into segments and mixed at random."""

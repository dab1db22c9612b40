"""AudioLDM2's autoencoder and vocoder."""

"""`polyres_mel`: an autoencoder of mel spectra and its vocoder."""

"""`polyres_wave`: a codec of the strongest coefficients of a lapped transform."""

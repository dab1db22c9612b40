"""What programs use of demucs 4: `python -m polyres.compat.demucs` and `polyres.compat.demucs.api`."""

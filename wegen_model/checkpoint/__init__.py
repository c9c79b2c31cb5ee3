"""Model files: the folder format, detection, conversion from public layouts."""

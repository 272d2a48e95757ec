"""Activation ranges from photos: sessions, runs, calibration tables."""

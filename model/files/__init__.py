"""Readers of files that may come from anybody: weights, pickled arrays, configurations."""

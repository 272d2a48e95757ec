"""Observers: from the numbers that pass through a tensor to the largest magnitude to represent.

One per file. An observer is fed photo by photo, is bounded in memory whatever it is fed, and can be
written down and taken up again. Codes are symmetric, so an observer looks at magnitudes.
"""

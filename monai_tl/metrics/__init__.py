"""Metrics on label maps: numpy and scipy only."""

"""Measurements of quality, speed and memory; each ends with one JSON line."""

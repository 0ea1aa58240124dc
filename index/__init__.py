"""Vectors to ranked rows: candidates, then exact MaxSim; knows nothing of models or images."""

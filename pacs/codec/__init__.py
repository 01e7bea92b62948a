"""Lossless compression with bit-exact proof, and decoding."""

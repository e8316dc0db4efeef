"""Protocols: which rows of a corpus are for training, validation and test; as functions, and in files."""

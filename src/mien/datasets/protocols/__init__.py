"""Protocols as data: who is in training and who in the test, drawn, mapped to other labels, and kept in files."""

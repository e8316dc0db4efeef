"""Predictions as tables: columns, files, sums, a journal to go on from."""

"""What readers of corpora stand on: folders and archives, tables of pixels and of text, names of splits, checked options."""

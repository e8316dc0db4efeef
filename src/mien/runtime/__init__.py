"""From a picture to expressions without torch: backends, the recognizer, tables and annotated pictures."""

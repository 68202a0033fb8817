"""Small spaces that were trained whole: the study that did, and its records as a table."""

"""Pictures with class labels: one file for each format, one record for all."""

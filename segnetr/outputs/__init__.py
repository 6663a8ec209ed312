"""What is written for people: masks, tables, figures, reports, model files."""

"""`segnetr predict`, and loading of trained models."""

"""SegNetr as in the paper, and encoders for it."""

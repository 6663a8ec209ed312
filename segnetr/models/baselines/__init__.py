"""Networks that SegNetr is compared with."""

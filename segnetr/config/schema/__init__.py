"""Every setting: its type, unit, range and default."""

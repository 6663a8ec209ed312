"""SegNetr: medical image segmentation from one command, with scores one can trust."""

__version__ = "0.1.0"

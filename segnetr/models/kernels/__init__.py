"""CPU kernels of SegNetr's blocks."""

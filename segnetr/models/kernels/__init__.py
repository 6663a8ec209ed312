"""CPU kernels of SegNetr's blocks, built on `hybrid_backbones.kernels`."""

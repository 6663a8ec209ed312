"""Pictures that are there twice: hashes, their candidates, the proof."""

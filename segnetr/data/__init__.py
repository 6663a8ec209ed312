"""Data: cases, strict readers, splits, transforms, cache, sampler, loaders."""

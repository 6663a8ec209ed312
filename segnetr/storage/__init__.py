"""Keep files complete: atomic writes, manifests and disk-full errors."""

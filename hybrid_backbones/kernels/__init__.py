"""Fast CPU kernels of both packages: oneDNN calls, batch-norm folding and recomputation.

`plain()` switches all of them off, `configure()` changes the sizes from which they are used. The
environment variable `HYBRID_BACKBONES_PLAIN=1` switches them off for a whole process.
"""

from hybrid_backbones.kernels.switch import configure, is_plain, plain

__all__ = ["configure", "is_plain", "plain"]

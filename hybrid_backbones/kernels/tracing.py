"""Whether code runs eagerly on real tensors, for everything that tracers must not see."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode


def runs_eagerly(x: Tensor) -> bool:
    """Return whether no compiler, exporter, tracer or dispatch mode sees operations on `x`.

    Dispatch modes are for example counters of multiply-adds, and tensors without data.
    """
    # First, because a tracer cannot ask for the rest.
    if torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
        return False
    if type(x) is not Tensor or torch._C._get_tracing_state():
        return False
    return _get_current_dispatch_mode() is None

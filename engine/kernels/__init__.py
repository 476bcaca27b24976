"""Array kernels of convolution and pooling: pure functions on arrays of module `xp`, channels last."""

from .conv import conv2d, conv2d_input_grad, conv2d_output_shape, conv2d_weight_grad
from .pool import avg_pool, avg_pool_grad, max_pool, max_pool_grad, max_pool_pick, pool_output_shape

__all__ = [
    "avg_pool",
    "avg_pool_grad",
    "conv2d",
    "conv2d_input_grad",
    "conv2d_output_shape",
    "conv2d_weight_grad",
    "max_pool",
    "max_pool_grad",
    "max_pool_pick",
    "pool_output_shape",
]

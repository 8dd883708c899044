"""Triton kernels for 3x3 convolutions with few channels, used where they are faster than cuDNN.

Triton is imported when a kernel is first launched: CPU builds of torch do not include it.
"""

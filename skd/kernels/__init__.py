"""Triton kernels for 3x3 convolutions of few channels, where measured faster than cuDNN.

Triton is imported when a kernel is first launched: CPU builds of torch do not include it.
"""

"""The figures, from tidy frames and analyses: one function a figure, one look for all."""

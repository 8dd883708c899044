"""Files for the use of a trained network elsewhere: weights, ONNX, and a model card."""

"""From a checkpoint folder as it comes from the hub to a folder of ONNX graphs, without torch."""

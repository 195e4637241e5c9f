"""An int8 network for OpenVINO: draw quantization windows, quantize, compare with fp32, report."""

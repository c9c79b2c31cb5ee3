"""The WeGen library: towers, decoder, training and the bundled miniature, without ComfyUI."""

"""The bundled miniature: its art, conversations, stages, judge and weights. `recipe.py` is the whole of it in order."""

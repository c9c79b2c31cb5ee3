"""The bundled miniature: its data recipe (art, concepts, scenes, tasks) and its weights."""

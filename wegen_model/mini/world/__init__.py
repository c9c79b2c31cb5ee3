"""What the miniature's pictures are made of: drawings, colours, scenes."""

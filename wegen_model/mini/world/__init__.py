"""What the miniature's pictures are made of: drawings, colours, scenes, and the pools of them."""

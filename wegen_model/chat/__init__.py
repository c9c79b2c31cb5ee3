"""What people say and show: boxes, conversations, tokens and prompts, and the states of the two editors."""

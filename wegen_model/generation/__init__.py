"""From a prompt to words and features, how each public decoder is driven, and arithmetic on features."""

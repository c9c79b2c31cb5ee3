"""From a prompt to words, features and pictures; inference presets of decoders; arithmetic on features."""

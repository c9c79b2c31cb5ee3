"""Training: one resumable loop (trainer.py), a task for each stage (stages/), their settings and presets."""

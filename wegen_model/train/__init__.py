"""Training: a resumable loop, the losses of WeGen, and (in mini/) the stages of the miniature."""

"""Training data: readers of public datasets, shards, mixtures, inspection, and the builders of DIIC and Laion-COCO-Recaption."""

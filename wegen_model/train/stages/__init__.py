"""The stages of training: what each trains, its loss and its export."""

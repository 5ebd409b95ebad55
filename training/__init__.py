"""The loop. It takes any model that gives logits, and knows none by name."""

CHECKPOINT = "checkpoint.pt"  # in the folder of a run

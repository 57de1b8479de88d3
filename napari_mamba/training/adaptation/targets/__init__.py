"""What is learnt: classes, the layers that tell them apart, and what a new class begins from."""

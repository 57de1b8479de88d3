"""Quality control of a batch: cases unlike the others, small pictures, and one page of them all."""

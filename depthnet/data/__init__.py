"""Data sets of image and depth pairs, from the files to the batches."""

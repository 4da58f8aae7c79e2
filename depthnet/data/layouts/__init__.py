"""The forms that data sets have on disk, one file each."""

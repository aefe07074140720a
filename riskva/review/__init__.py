"""What evaluation needs of data sets: the rows that were answered, their photos, and the training reports."""

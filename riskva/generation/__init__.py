"""Prompt -> text: the model ready to answer, batches of answers, and a data set's predictions."""

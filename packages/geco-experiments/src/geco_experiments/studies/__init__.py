"""The studies: one file for each figure, table or claim."""

"""From a text notebook to a page of the book."""

"""The controls of the book's pages: alive with a kernel, radio buttons without one."""

"""How the book is made: chapters executed with papermill, numbers in prose, and pages rendered by Sphinx."""

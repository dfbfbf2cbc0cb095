"""Tables and figures as files, for the command line."""

"""What everything else stands on: whole files, locks, groups of samples, and where results come from."""

"""What is trained and audited by name: experiments, methods, example difficulty, and runs over seeds."""

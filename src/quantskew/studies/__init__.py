"""What is run to find out: experiments, methods that mitigate, rotations, and the records that they left."""

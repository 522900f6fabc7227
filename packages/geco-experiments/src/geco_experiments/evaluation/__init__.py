"""What finished models reach, and what theory says that they can reach at most."""

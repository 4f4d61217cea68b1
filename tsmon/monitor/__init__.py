"""What is known of the tailnet, and what follows from it."""

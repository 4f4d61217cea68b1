"""Who is notified, and when: desks, groups, quiet times, the outbox, channels, the heartbeat."""

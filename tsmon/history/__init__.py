"""What outlives the process: SQLite and InfluxDB, and uptime from both."""

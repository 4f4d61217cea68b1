"""What is promised whatever the code: timelines, models, scenarios."""

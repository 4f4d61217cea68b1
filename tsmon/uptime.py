"""Arithmetic on spans and observed time; pure. Times in Unix seconds, percentages 0 to 100 or None."""

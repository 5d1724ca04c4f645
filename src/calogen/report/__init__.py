"""Pictures and pages of numbers that others computed."""

"""Judging one file of showers against another, whoever made them."""

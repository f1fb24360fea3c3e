"""Spiders: what is asked for, and what an answer means."""
